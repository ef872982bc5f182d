//! What else uses the PostgreSQL schema that we are in: tables of another program with our names, and roles that are
//! allowed to read and write whatever is made there.
//!
//! The databases that Supabase hosts do both. Their default privileges give every new table in `public` to the roles
//! `anon` and `authenticated`, under which anybody can reach it over HTTP: the books would be open to the world. So these
//! privileges are revoked in the transaction that makes the tables; there is no moment with them. Row level security
//! would do too, but would also shut out a user of `velro serve` that does not own the tables.

use serde_json::json;
use sqlx::migrate::Migrator;
use std::collections::BTreeSet;

use super::conn::{Conn, args, sql};
use super::error::Result;
use crate::store::StoreError;

/// Roles for whoever comes over HTTP, signed in or not.
const PUBLIC_ROLES: [&str; 2] = ["anon", "authenticated"];

/// What the advice of every error here leads to.
const OWN_SCHEMA: &str = "give Velro a user and a schema of its own, CREATE ROLE velro LOGIN PASSWORD '...'; CREATE SCHEMA velro \
    AUTHORIZATION velro; ALTER ROLE velro SET search_path = velro; and connect as that user (docs/SUPABASE.md)";

/// Refuses a schema in which ours would collide with what is there; for one that has no schema of ours yet.
pub(super) async fn refuse_occupied(conn: &mut Conn<'_>, migrations: &Migrator) -> std::result::Result<(), StoreError> {
    let schema: Option<String> = conn
        .one(
            sql!(sqlite: "", postgres: "SELECT current_schema()::text AS schema"),
            args![],
        )
        .await?
        .get("schema")?;
    let Some(schema) = schema else {
        return Err(StoreError::Schema(format!(
            "the database user's search_path names no schema that exists: create it, or {OWN_SCHEMA}"
        )));
    };
    let ours = json!(made_by(migrations, "TABLE ")).to_string();
    let sql = sql!(
        sqlite: "",
        postgres: "SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
            WHERE n.nspname = current_schema() AND c.relname IN (SELECT json_array_elements_text($1::json)) \
            ORDER BY c.relname",
    );
    let rows = conn.all(sql, args![&ours]).await?;
    let taken = rows
        .iter()
        .map(|row| row.get("name"))
        .collect::<Result<Vec<String>>>()?;
    match taken.is_empty() {
        true => Ok(()),
        false => Err(StoreError::Schema(format!(
            "the schema \"{schema}\" has tables of another program with the names of ours ({}): {OWN_SCHEMA}",
            taken.join(", ")
        ))),
    }
}

/// Takes our tables, sequences and functions away from [`PUBLIC_ROLES`]. Nothing when there are no such roles.
pub(super) async fn shut_out(conn: &mut Conn<'_>, migrations: &Migrator) -> Result<()> {
    let exposed = exposed(conn, migrations).await?;
    for Exposed { kind, name, roles } in &exposed {
        conn.composed(format!("REVOKE ALL PRIVILEGES ON {kind} {name} FROM {roles}"), &[])
            .await?;
    }
    if !exposed.is_empty() {
        tracing::info!(
            objects = exposed.len(),
            "took the privileges of anon and authenticated on Velro's tables away: they are reachable over HTTP in a \
             database of Supabase"
        );
    }
    Ok(())
}

/// Says when somebody has given them back.
pub(super) async fn warn_if_exposed(conn: &mut Conn<'_>, migrations: &Migrator) -> Result<()> {
    let exposed = exposed(conn, migrations).await?;
    if let Some(first) = exposed.first() {
        tracing::error!(
            objects = exposed.len(),
            first = first.name,
            roles = first.roles,
            "whoever comes over HTTP may use Velro's tables: run `velro migrate`, which takes that away"
        );
    }
    Ok(())
}

/// Something of ours that others may use.
struct Exposed {
    kind: String,
    /// Quoted, with its schema.
    name: String,
    /// For `REVOKE`.
    roles: String,
}

async fn exposed(conn: &mut Conn<'_>, migrations: &Migrator) -> Result<Vec<Exposed>> {
    let roles = json!(PUBLIC_ROLES).to_string();
    let mut tables = made_by(migrations, "TABLE ");
    tables.insert("_sqlx_migrations".to_owned());
    let tables = json!(tables).to_string();
    let functions = json!(made_by(migrations, "FUNCTION ")).to_string();
    // What everybody may do with a table, these roles may too. With functions that is the normal case, and without harm:
    // ours only compute, or are triggers, which nobody can call.
    let sql = sql!(
        sqlite: "",
        postgres: "WITH roles AS (SELECT oid, rolname FROM pg_roles \
                WHERE rolname IN (SELECT json_array_elements_text($1::json))), \
            tables AS (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                WHERE n.nspname = current_schema() AND c.relname IN (SELECT json_array_elements_text($2::json))), \
            ours AS ( \
                SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.relnamespace AS space, \
                    c.relname::text AS name, '' AS suffix, c.relacl AS acl, true AS everybody \
                    FROM pg_class AS c WHERE c.oid IN (SELECT oid FROM tables) OR (c.relkind = 'S' AND EXISTS \
                        (SELECT 1 FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                            AND d.refobjid IN (SELECT oid FROM tables))) \
                UNION ALL SELECT 'FUNCTION', p.pronamespace, p.proname::text, \
                    '(' || pg_get_function_identity_arguments(p.oid) || ')', p.proacl, false \
                    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
                    WHERE n.nspname = current_schema() AND p.proname IN (SELECT json_array_elements_text($3::json))) \
            SELECT o.kind, format('%I.%I', n.nspname, o.name) || o.suffix AS name, \
                string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE format('%I', r.rolname) END, ', ') AS roles \
            FROM ours AS o JOIN pg_namespace AS n ON n.oid = o.space CROSS JOIN LATERAL aclexplode(o.acl) AS a \
                LEFT JOIN roles AS r ON r.oid = a.grantee \
            WHERE EXISTS (SELECT 1 FROM roles) AND (r.oid IS NOT NULL OR (a.grantee = 0 AND o.everybody)) \
            GROUP BY 1, 2 ORDER BY 1, 2",
    );
    let rows = conn.all(sql, args![&roles, &tables, &functions]).await?;
    rows.iter()
        .map(|row| {
            Ok(Exposed {
                kind: row.get("kind")?,
                name: row.get("name")?,
                roles: row.get("roles")?,
            })
        })
        .collect()
}

/// The names that the migrations create.
fn made_by(migrations: &Migrator, what: &str) -> BTreeSet<String> {
    let created = |line: &str| {
        let rest = line.trim_start().strip_prefix("CREATE ")?.strip_prefix(what)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        Some(rest[..end].to_owned())
    };
    let lines = migrations.iter().flat_map(|migration| migration.sql.as_str().lines());
    lines.filter_map(created).collect()
}

#[cfg(test)]
mod tests {
    use super::super::postgres::MIGRATIONS;
    use super::*;

    #[test]
    fn every_table_and_function_is_found() {
        let tables = made_by(&MIGRATIONS, "TABLE ");
        for name in [
            "users",
            "accounts",
            "transfers",
            "holds",
            "schema_floor",
            "copied_tables",
        ] {
            assert!(tables.contains(name), "{name} in {tables:?}");
        }
        let all: String = MIGRATIONS.iter().map(|m| m.sql.as_str()).collect();
        assert_eq!(
            tables.len(),
            all.matches("CREATE TABLE").count(),
            "one name for each CREATE TABLE"
        );
        let functions = made_by(&MIGRATIONS, "FUNCTION ");
        assert_eq!(functions.len(), all.matches("CREATE FUNCTION").count(), "{functions:?}");
    }
}
