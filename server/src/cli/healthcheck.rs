//! `velro healthcheck`: asks the server on this machine whether it is ready.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use crate::config::{Config, Overrides};

/// The whole answer must be there by then.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Says on `out` what it found; true when the server is ready.
pub async fn run(flags: &Overrides, env: &BTreeMap<String, String>, out: &mut impl Write) -> io::Result<bool> {
    let flags = Overrides {
        read_only: true,
        ..flags.clone()
    };
    // Only the address matters here; `velro check` is for the rest.
    let (config, _, _) = Config::load_leniently(&flags, env);
    // Where the API is full, the port of the metrics still answers.
    let url = format!("{}/health/ready", config.metrics_url());
    match ask(&url, TIMEOUT).await {
        Ok(status) if status.is_success() => {
            writeln!(out, "ready: {url} answers {status}")?;
            Ok(true)
        }
        Ok(status) => {
            writeln!(out, "not ready: {url} answers {status}")?;
            Ok(false)
        }
        Err(error) => {
            let why = if error.is_timeout() {
                "no answer in time"
            } else {
                "no answer"
            };
            writeln!(out, "not ready: {url}: {why}")?;
            Ok(false)
        }
    }
}

async fn ask(url: &str, timeout: Duration) -> reqwest::Result<reqwest::StatusCode> {
    // A proxy of the environment is for the world outside.
    let client = reqwest::Client::builder().no_proxy().timeout(timeout).build()?;
    Ok(client.get(url).send().await?.status())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers one request with a status line, or never when it is empty.
    async fn server(status: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            if status.is_empty() {
                // Held open until the client gives up.
                while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
            } else {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (port, task)
    }

    async fn check(port: u16) -> (bool, String) {
        let flags = Overrides {
            port: Some(port),
            ..Overrides::default()
        };
        let mut out = Vec::new();
        let ready = run(&flags, &BTreeMap::new(), &mut out).await.unwrap();
        (ready, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn the_status_decides() {
        let (port, task) = server("200 OK").await;
        let (ready, shown) = check(port).await;
        assert!(ready && shown.starts_with("ready: http://127.0.0.1:"), "{shown}");
        assert!(task.await.unwrap().starts_with("GET /health/ready HTTP/1.1"));
        let (port, _task) = server("503 Service Unavailable").await;
        let (ready, shown) = check(port).await;
        assert!(!ready && shown.contains("answers 503"), "{shown}");
    }

    #[tokio::test]
    async fn no_answer_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(!check(port).await.0);
        let (port, _task) = server("").await;
        let url = format!("http://127.0.0.1:{port}/health/ready");
        assert!(ask(&url, Duration::from_millis(100)).await.unwrap_err().is_timeout());
    }
}
