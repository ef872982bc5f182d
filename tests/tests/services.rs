//! The servers that other tests rely on: they answer, come back after every kind of end, and leave nothing behind. What
//! the proxies break is broken.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tests::harness::{SOON, eventually};
use tests::services::{Persistence, PgBouncer, Postgres, PostgresOptions, Proxy, Redis, shared};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?;
    // What PgBouncer in transaction mode needs of every client.
    options
        .extra_float_digits(None)
        .statement_cache_capacity(0)
        .connect()
        .await
}

async fn number(connection: &mut PgConnection, sql: &str) -> sqlx::Result<i32> {
    let row = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false);
    row.fetch_one(connection).await?.try_get(0)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

/// Processes that work in a folder, or were told of it.
fn processes_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let name = folder.to_str().unwrap().to_owned();
    let lines = entries.filter_map(|entry| {
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (cwd.starts_with(&name) || line.contains(&name)).then_some(line)
    });
    lines.collect()
}

fn assert_nothing_is_left(folder: &Path) {
    assert_eq!(processes_of(folder), [""; 0]);
    assert!(!folder.exists(), "{} is still there", folder.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_comes_back_from_every_end_and_leaves_nothing_behind() {
    let mut server = Postgres::start(PostgresOptions::default()).await.unwrap();
    let folder = server.folder().to_path_buf();
    let database = server.create_database().await.unwrap();
    let url = server.url(&database);
    let mut connection = connect(&url).await.unwrap();
    run(
        &mut connection,
        "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)",
    )
    .await;
    assert_eq!(
        number(&mut connection, "SELECT current_setting('max_connections')::int")
            .await
            .unwrap(),
        300
    );

    server.restart().await.unwrap();
    number(&mut connection, "SELECT 1").await.unwrap_err();
    for end in 0..3 {
        let mut connection = connect(&url).await.unwrap();
        run(&mut connection, "INSERT INTO kept VALUES (1)").await;
        match end {
            0 => server.stop().await.unwrap(),
            1 => server.stop_immediately().await.unwrap(),
            _ => server.kill9().await.unwrap(),
        }
        connect(&url).await.unwrap_err();
        server.start_again().await.unwrap();
        let mut connection = connect(&url).await.unwrap();
        assert_eq!(
            number(&mut connection, "SELECT count(*)::int FROM kept").await.unwrap(),
            end + 2
        );
    }
    // Killed and not started again: no process, no folder, no shared memory.
    let segments = shared_memory();
    server.kill9().await.unwrap();
    drop(server);
    assert_nothing_is_left(&folder);
    assert!(shared_memory() < segments, "the shared memory is still there");
}

/// How many segments of System V's shared memory there are; other tests run too, so only before and after tell.
fn shared_memory() -> usize {
    let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    text.lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_is_in_transaction_mode() {
    let server = Postgres::start(PostgresOptions::quick()).await.unwrap();
    let mut pooler = PgBouncer::start(server.port()).await.unwrap();
    // Any database of the server, also one that is made later.
    let url = pooler.url(&server.create_database().await.unwrap());
    let (mut one, mut two) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let backend = "SELECT pg_backend_pid()";
    // Two clients that take turns share one server connection.
    assert_eq!(
        number(&mut one, backend).await.unwrap(),
        number(&mut two, backend).await.unwrap()
    );
    let mut transaction = one.begin().await.unwrap();
    let held = number(&mut transaction, backend).await.unwrap();
    assert_ne!(held, number(&mut two, backend).await.unwrap());
    transaction.commit().await.unwrap();

    pooler.kill9().await.unwrap();
    number(&mut two, backend).await.unwrap_err();
    pooler.start_again().await.unwrap();
    number(&mut connect(&url).await.unwrap(), backend).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_what_it_was_told_to_keep() {
    for (persistence, kept) in [(Persistence::None, 0), (Persistence::EverySecond, 1)] {
        let mut server = Redis::start(persistence).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        client.write_all(b"SET a 1\r\n").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"+OK\r\n");
        assert_eq!(server.keys().await.unwrap(), 1);
        // An orderly stop writes all of it.
        server.stop().await.unwrap();
        server.keys().await.unwrap_err();
        server.start_again().await.unwrap();
        assert_eq!(server.keys().await.unwrap(), kept, "{persistence:?}");
        server.kill9().await.unwrap();
        server.start_again().await.unwrap();
        server.flush_all().await.unwrap();
        assert_eq!(server.keys().await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_cuts_pauses_and_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().port()).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let address = ("127.0.0.1", proxy.port());
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    client.write_all(b"a").await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
    assert_eq!((&byte, proxy.connections()), (b"a", 1));

    proxy.pause();
    client.write_all(b"b").await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), client.read_exact(&mut byte)).await;
    assert!(silence.is_err(), "it passed");
    proxy.resume();
    client.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"b");

    proxy.cut();
    assert_eq!(client.read(&mut byte).await.unwrap_or_default(), 0, "closed");
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"c").await.unwrap();
    client.read_exact(&mut byte).await.unwrap();

    proxy.refuse().await;
    assert_eq!(client.read(&mut byte).await.unwrap_or_default(), 0, "closed");
    TcpStream::connect(address).await.unwrap_err();
    proxy.accept().await;
    TcpStream::connect(address).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_of_the_test_run_answer() {
    let shared = shared().unwrap();
    let database = shared.create_database().await.unwrap();
    let plain = database.pooled_url.strip_suffix("?pgbouncer=true").unwrap();
    for url in [&database.url, plain] {
        let mut connection = connect(url).await.unwrap();
        assert_eq!(number(&mut connection, "SELECT 1").await.unwrap(), 1);
    }
    let url = database.url.clone();
    drop(database);
    connect(&url).await.unwrap_err();
    assert!(shared.redis_url.starts_with("redis://127.0.0.1:"));
}

/// The program `services` in a folder for temporary files of its own, with `sh -c SCRIPT` as its command.
struct Program {
    child: tokio::process::Child,
    folder: tempfile::TempDir,
}

impl Program {
    /// Waits for the script's first line: then all servers run.
    async fn start(script: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("velro-services-").tempdir().unwrap();
        // The servers may run as another user.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_services"));
        command.args(["sh", "-c", script]).env("TMPDIR", folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).await.unwrap();
        let servers = [
            "postgres://postgres@127.0.0.1:",
            "postgres://postgres@127.0.0.1:",
            "redis://127.0.0.1:",
        ];
        for (url, expected) in line.split_whitespace().zip(servers) {
            assert!(url.starts_with(expected), "{line}");
        }
        assert_eq!(line.split_whitespace().count(), 3, "{line}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 3, "a folder for each server");
        Self { child, folder }
    }

    fn signal(&self, signal: &str) {
        let line = format!("kill -{signal} {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Waits for the end, of the servers too.
    async fn end(mut self) -> std::process::ExitStatus {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let path = self.folder.path();
        eventually("nothing is left", SOON, || async {
            let is_empty = path.read_dir().unwrap().next().is_none();
            (is_empty && processes_of(path).is_empty()).then_some(())
        })
        .await;
        status
    }
}

const TELL: &str = "echo $VELRO_TEST_POSTGRES $VELRO_TEST_PGBOUNCER $VELRO_TEST_REDIS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_passes_the_exit_code_on() {
    let program = Program::start(&format!("{TELL}; read -r line; exit 7")).await;
    assert_eq!(program.end().await.code(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_the_command_and_the_servers() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        // A grandchild in the background, as cargo has.
        let program = Program::start(&format!("sleep 1000 & {TELL}; wait")).await;
        program.signal(signal);
        assert_eq!(program.end().await.code(), Some(code));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_do_not_outlive_a_killed_test_run() {
    let program = Program::start(&format!("{TELL}; read -r line")).await;
    program.signal("KILL");
    assert_eq!(program.end().await.code(), None);
}
