//! The PostgreSQL that comes with a project: its default privileges open every new table to whoever comes over HTTP, and
//! the tables of the original service are in the way.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use std::str::FromStr;
use tests::gotrue_sim::{GoTrueSim, Settings};
use tests::harness::{Server, race};
use tests::services::{PgBouncer, Postgres, PostgresOptions};
use velro::store::sql::{OpenOptions, SqlStore};
use velro::store::{Store, StoreError};

use super::*;

const MIGRATE: OpenOptions = OpenOptions {
    create: true,
    migrate: true,
};
const SERVE: OpenOptions = OpenOptions {
    create: true,
    migrate: false,
};

/// Roles and default privileges as Supabase has them. `postgres` is no superuser there; here it is called `owner`.
const AS_HOSTED: &str = "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role NOLOGIN BYPASSRLS; \
    CREATE ROLE owner LOGIN CREATEROLE; GRANT ALL ON SCHEMA public TO owner; \
    GRANT CREATE ON DATABASE postgres TO owner; \
    GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role; \
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role; \
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role; \
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role";

/// The remedy, as docs/SUPABASE.md has it.
const OWN_SCHEMA: &str = "CREATE ROLE velro LOGIN PASSWORD 'choose-one'; CREATE SCHEMA velro AUTHORIZATION velro; \
    ALTER ROLE velro SET search_path = velro";

struct Hosted {
    postgres: Postgres,
    root: PgConnection,
}

impl Hosted {
    async fn start() -> Hosted {
        let postgres = Postgres::start(PostgresOptions::quick()).await.unwrap();
        let root = connect(&postgres.superuser_url()).await;
        let mut hosted = Hosted { postgres, root };
        hosted.run(AS_HOSTED).await;
        hosted
    }

    fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.postgres.port())
    }

    async fn run(&mut self, sql: &str) {
        execute(&mut self.root, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// What a query gives, one text for each row.
    async fn texts(&mut self, sql: &str) -> Vec<String> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut self.root)
            .await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// What the roles of the world may do with tables and sequences in a schema.
    async fn open_to_the_world(&mut self, schema: &str) -> Vec<String> {
        let sql = format!(
            "SELECT DISTINCT c.relname || ' ' || r.rolname FROM pg_class AS c \
             JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN pg_roles AS r CROSS JOIN LATERAL \
             unnest(CASE c.relkind WHEN 'S' THEN '{{SELECT,UPDATE,USAGE}}'::text[] \
                ELSE '{{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}}'::text[] END) AS p \
             WHERE n.nspname = '{schema}' AND c.relkind IN ('r', 'p', 'v', 'S') AND r.rolname IN ('anon', 'authenticated') \
             AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.rolname, c.oid, p) \
                ELSE has_table_privilege(r.rolname, c.oid, p) END ORDER BY 1"
        );
        self.texts(&sql).await
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

async fn execute(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(conn)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosted_database_does_not_open_the_books_to_the_world() {
    let mut hosted = Hosted::start().await;
    let url = hosted.url("owner");
    // Something of somebody else's, which is open on purpose.
    let mut owner = connect(&url).await;
    execute(
        &mut owner,
        "CREATE TABLE theirs (id bigint GENERATED ALWAYS AS IDENTITY); CREATE TABLE more (id serial)",
    )
    .await
    .unwrap();
    let theirs = hosted.open_to_the_world("public").await;
    assert_eq!(theirs.len(), 8, "the default privileges are as at Supabase: {theirs:?}");

    SqlStore::open(&url, MIGRATE).await.unwrap().close().await;
    assert_eq!(hosted.open_to_the_world("public").await, theirs);
    let mut anybody = connect(&hosted.postgres.superuser_url()).await;
    execute(&mut anybody, "SET ROLE anon; SELECT * FROM theirs")
        .await
        .unwrap();
    for sql in [
        "SELECT * FROM users",
        "UPDATE accounts SET balance = 1000000",
        "DELETE FROM _sqlx_migrations",
    ] {
        let error = execute(&mut anybody, sql).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{sql}: {error}");
    }
    let mine =
        "SELECT proname::text FROM pg_proc WHERE proname LIKE 'velro%' AND proacl::text ~ '(anon|authenticated)='";
    assert_eq!(hosted.texts(mine).await, Vec::<String>::new());

    // Given back by hand: told at the start, taken away by the next `velro migrate`.
    hosted
        .run("GRANT SELECT ON users TO anon; GRANT ALL ON accounts TO PUBLIC")
        .await;
    let still = hosted.open_to_the_world("public").await;
    assert_eq!(still.len(), theirs.len() + 3, "{still:?}");
    let options = tests::harness::Options::new().env("DATABASE_URL", &url);
    let server = Server::with(options).await;
    assert!(
        server.log_text().contains("may use Velro's tables"),
        "{}",
        server.log_text()
    );
    assert_eq!(
        hosted.open_to_the_world("public").await,
        still,
        "a start changes nothing"
    );
    server.velro(&["migrate"]).ok();
    assert_eq!(hosted.open_to_the_world("public").await, theirs);
    // Who owns it works on.
    let ada = server.register("ada").await;
    assert_eq!(ada.get(BALANCE).await.ok()["balance"], 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_the_original_service_are_left_alone_and_a_schema_of_ones_own_works() {
    let mut hosted = Hosted::start().await;
    let url = hosted.url("owner");
    let mut owner = connect(&url).await;
    let original = "CREATE TABLE users (id uuid PRIMARY KEY, email text); CREATE TABLE projects (id uuid); \
        CREATE TABLE generations (id uuid); CREATE TABLE credit_transactions (id uuid)";
    execute(&mut owner, original).await.unwrap();
    for options in [MIGRATE, SERVE] {
        let Err(StoreError::Schema(told)) = SqlStore::open(&url, options).await else {
            panic!("it should have been refused")
        };
        for part in [
            "\"public\"",
            "(generations, projects, users)",
            "CREATE SCHEMA velro AUTHORIZATION velro",
            "docs/SUPABASE.md",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
    let tables = "SELECT count(*)::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    assert_eq!(hosted.texts(tables).await, ["4"]);

    // As the error says, and as the owner, who is no superuser. With PostgreSQL 16 and newer it has to be a member first.
    let mut statements = OWN_SCHEMA.split(';');
    execute(&mut owner, statements.next().unwrap()).await.unwrap();
    execute(&mut owner, "GRANT velro TO CURRENT_USER").await.unwrap();
    for sql in statements {
        execute(&mut owner, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    // Through a pooler in transaction mode, which would forget a search_path that the session sets.
    let pooler = PgBouncer::start_as(hosted.postgres.port(), "velro").await.unwrap();
    let pooled = format!("{}?pgbouncer=true", pooler.url("postgres"));
    SqlStore::open(&pooled, MIGRATE).await.unwrap().close().await;
    assert_eq!(hosted.texts(tables).await, ["4"]);
    assert_eq!(hosted.open_to_the_world("velro").await, Vec::<String>::new());
    // Without a pooler the URL may say it too.
    let by_url = format!("{}?options=-csearch_path%3Dvelro", hosted.url("postgres"));
    SqlStore::open(&by_url, SERVE).await.unwrap().close().await;

    // Two replicas, one with and one without the pooler, meet fifty first requests of three people.
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let direct = Server::with(sim.options().env("DATABASE_URL", hosted.url("velro"))).await;
    let through = Server::with(sim.options().env("DATABASE_URL", &pooled)).await;
    let people: Vec<_> = (0..3).map(|n| sim.add_person(&format!("p{n}@example.com"))).collect();
    let answers = race(50, |n| {
        let server = if n % 2 == 0 { &direct } else { &through };
        let client = with(server, &sim.token(people[n % 3]));
        async move { client.get(BALANCE).await }
    });
    for answer in answers.await {
        assert_eq!(answer.ok()["balance"], 1000);
    }
    direct.verify_ledger().unwrap();
    // A session that one replica ends is over at the other.
    let ada = with(&direct, &sim.token(people[0]));
    ada.get(ME).await.ok();
    ada.post_empty(LOGOUT).await.ok();
    tests::harness::eventually("the end is known everywhere", tests::harness::SOON, || async {
        let status = with(&through, ada.token()).get(BALANCE).await.status.as_u16();
        (status == 401).then_some(())
    })
    .await;
    assert_eq!(hosted.texts("SELECT count(*)::text FROM velro.users").await, ["3"]);
    assert_eq!(hosted.texts("SELECT count(*)::text FROM public.users").await, ["0"]);
}
