//! Redis for tests: the shared one that `make test` starts, under a prefix of the test's own, and servers of a test's
//! own that it may stop and flush.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code; what is unexpected must fail the test"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use velro::id::GenerationId;
use velro::shared::Link;

/// Where the shared Redis is.
const VARIABLE: &str = "VELRO_TEST_REDIS";

/// A prefix nobody else uses.
pub fn fresh_prefix() -> String {
    format!("test:{}:", GenerationId::new())
}

/// A link to the shared Redis under a fresh prefix.
pub fn test_link() -> Link {
    let url = std::env::var(VARIABLE)
        .unwrap_or_else(|_| panic!("{VARIABLE} is not set: run the tests with `make test`, which starts a Redis"));
    Link::open(&url, &fresh_prefix(), 4).unwrap()
}

/// A Redis server of a test's own; killed with the test.
pub struct OwnRedis {
    port: u16,
    folder: tempfile::TempDir,
    server: Option<Child>,
}

impl OwnRedis {
    /// Starts a server on a free port.
    pub fn start() -> OwnRedis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = OwnRedis {
            port,
            folder: tempfile::tempdir().unwrap(),
            server: None,
        };
        redis.start_again();
        redis
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server; its data are gone.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Lets the server hang, its connections open, or go on.
    pub fn hang(&self, hangs: bool) {
        let id = self.server.as_ref().unwrap().id().to_string();
        let signal = if hangs { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Starts an empty server on the same port.
    pub fn start_again(&mut self) {
        let port = self.port.to_string();
        let server = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn();
        self.server = Some(server.expect("redis-server is not installed: `make deps` installs it"));
        let began = Instant::now();
        while self.try_command::<String>("PING").is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "redis-server does not answer"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command without an answer that matters: `FLUSHALL`, `SCRIPT FLUSH`.
    pub fn command(&self, command: &str) {
        self.try_command::<redis::Value>(command).unwrap();
    }

    /// Commands carried out since the last `CONFIG RESETSTAT`, those of scripts included.
    pub fn commands(&self) -> u64 {
        let info: String = self.try_command("INFO commandstats").unwrap();
        let calls = info.split(":calls=").skip(1).filter_map(|rest| rest.split(',').next());
        calls.map(|calls| calls.parse::<u64>().unwrap()).sum()
    }

    fn try_command<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        let mut words = command.split_whitespace();
        let mut call = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            call.arg(word);
        });
        call.query(&mut connection)
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
