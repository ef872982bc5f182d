//! Opening PostgreSQL: pools, limits, schema.
//!
//! Writers and readers have pools of their own, so that a flood of reads cannot keep a settlement waiting. Connections are
//! given out in the order in which they were asked for; who waits too long is told that the database is not available.

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::OpenOptions;
use super::conn::Conn;
use super::error::Fault;
use super::{neighbours, schema};
use crate::store::StoreError;

/// Every migration this program knows, compiled in.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// Connections of each pool.
pub(super) const CONNECTIONS: u32 = 12;
/// How long to wait for a connection before the database counts as not available.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is asked for a sign of life before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// How long a connection may take to say that it is fit for the next; longer than a statement may.
const RELEASE_PATIENCE: Duration = Duration::from_secs(12);
/// How long to wait for a server that is just starting.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// Advisory lock of whoever changes the schema.
const MIGRATION_LOCK: i64 = 0x7665_6c72_6f00_0001;

/// The pools; see [`Conn`] for `named`.
pub(super) struct Opened {
    pub(super) writers: PgPool,
    pub(super) readers: PgPool,
    pub(super) named: bool,
}

/// Opens a `postgres:` URL. `?pgbouncer=true` says that a pooler in transaction mode is in front.
pub(super) async fn open(url: &str, options: OpenOptions) -> Result<Opened, StoreError> {
    let (connect, named) = parse(url)?;
    let conn = with_schema(&connect, named, options).await?;
    // It was only needed for this; an error would say that it is gone already.
    drop(conn.close().await);
    let pool = || {
        let connect = match named {
            // A pooler knows no options at the start of a session.
            true => connect.clone().options([
                ("lock_timeout", "5s"),
                ("statement_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "10s"),
                // Batches are given as JSON, of which the planner knows no length: it must not read whole tables for one.
                ("random_page_cost", "1.1"),
            ]),
            false => connect.clone(),
        };
        PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    match meta.idle_for > TRUSTED_IDLE {
                        true => Ok(conn.ping().await.is_ok()),
                        false => Ok(true),
                    }
                })
            })
            // What was given up in the middle may wait for a server that is gone without a word; its place must not.
            .after_release(|conn, _| {
                Box::pin(async move {
                    match timeout(RELEASE_PATIENCE, conn.ping()).await {
                        Ok(alive) => alive.map(|()| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
            .connect_lazy_with(connect)
    };
    Ok(Opened {
        writers: pool(),
        readers: pool(),
        named,
    })
}

/// One connection without limits, and whether it may keep prepared statements, for work that takes its time.
pub(super) async fn open_one(url: &str, options: OpenOptions) -> Result<(PgConnection, bool), StoreError> {
    let (connect, named) = parse(url)?;
    Ok((with_schema(&connect, named, options).await?, named))
}

/// A connection to a database that has the schema.
async fn with_schema(
    connect: &PgConnectOptions,
    named: bool,
    options: OpenOptions,
) -> Result<PgConnection, StoreError> {
    let mut conn = first_connection(connect).await?;
    if options.migrate || options.create {
        migrate(&mut conn, named, options).await?;
    }
    // In a transaction: through a pooler only there do two messages reach one server.
    let mut look = conn.begin().await.map_err(Fault::from)?;
    let mut inside = Conn::Postgres { conn: &mut look, named };
    schema::check(&mut inside, &MIGRATIONS).await?;
    neighbours::warn_if_exposed(&mut inside, &MIGRATIONS).await?;
    look.rollback().await.map_err(Fault::from)?;
    Ok(conn)
}

/// Options of the URL, and whether prepared statements may stay with their connection.
fn parse(url: &str) -> Result<(PgConnectOptions, bool), StoreError> {
    let invalid = || StoreError::Schema("the database's URL is not a valid postgres: URL".into());
    let mut parsed = Url::parse(url).map_err(|_| invalid())?;
    let pooler = |name: &str, value: &str| name == "pgbouncer" && value == "true";
    let pooled = parsed.query_pairs().any(|(name, value)| pooler(&name, &value))
        // Supabase's pooler in transaction mode.
        || (parsed.port() == Some(6543) && parsed.host_str().is_some_and(|host| host.ends_with(".pooler.supabase.com")));
    let rest: Vec<(String, String)> = parsed
        .query_pairs()
        .filter(|(name, _)| name != "pgbouncer")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    parsed.set_query(None);
    if !rest.is_empty() {
        parsed.query_pairs_mut().extend_pairs(rest);
    }
    let connect = PgConnectOptions::from_str(parsed.as_str())
        .map_err(|_| invalid())?
        // A pooler refuses it at the start of a session, and there are no floats here.
        .extra_float_digits(None);
    let connect = match pooled {
        true => connect.statement_cache_capacity(0),
        false => connect,
    };
    Ok((connect.application_name("velro"), !pooled))
}

/// Waits for a server that is just starting; what else is wrong is told at once.
async fn first_connection(connect: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let give_up = Instant::now() + START_PATIENCE;
    loop {
        match connect.connect().await {
            Ok(conn) => return Ok(conn),
            Err(error) => {
                let fault = Fault::from(error);
                if !fault.is_disconnected() || Instant::now() >= give_up {
                    return Err(fault.into());
                }
                tracing::warn!(reason = ?fault, "the database does not answer yet; waiting");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Applies what is missing, all of it in one transaction that nobody else enters: replicas that start together wait here,
/// and find nothing left to do. Without [`OpenOptions::migrate`] only an empty database is touched.
async fn migrate(conn: &mut PgConnection, named: bool, options: OpenOptions) -> Result<(), StoreError> {
    let mut transaction = conn.begin().await.map_err(Fault::from)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .persistent(named)
        .bind(MIGRATION_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(Fault::from)?;
    let mut inside = Conn::Postgres {
        conn: &mut transaction,
        named,
    };
    let empty = schema::is_empty(&mut inside).await?;
    if empty {
        neighbours::refuse_occupied(&mut inside, &MIGRATIONS).await?;
    }
    if options.migrate || empty {
        let migrator = schema::tolerant(&MIGRATIONS);
        // `run` asks for `Acquire`, which callers cannot prove `Send`; sqlx made this one for just that reason.
        migrator
            .run_direct(None, &mut *transaction, false)
            .await
            .map_err(schema::explain)?;
        let mut inside = Conn::Postgres {
            conn: &mut transaction,
            named,
        };
        neighbours::shut_out(&mut inside, &MIGRATIONS).await?;
        if !named {
            // The migrator prepares statements by name, which must not stay with the pooler's connection.
            sqlx::raw_sql("DEALLOCATE ALL")
                .execute(&mut *transaction)
                .await
                .map_err(Fault::from)?;
        }
    }
    transaction
        .commit()
        .await
        .context("the migration was not committed")
        .map_err(StoreError::Unavailable)
}
