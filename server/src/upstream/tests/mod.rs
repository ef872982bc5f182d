//! Requests, downloads and webhook signatures against a small server that misbehaves on demand.

mod download;
mod perform;
mod webhook;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use velro_plugin::{Manifest, WebhookAuth};

use super::Upstream;
use crate::config::Secret;
use crate::provider::LoadedProvider;
use crate::provider::sandbox::Sandbox;

pub(crate) const SECRET: &str = "id:very/secret value&x=1";

/// What the server does with a connection.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Closes it before reading.
    Close,
    /// Reads the request, then closes.
    ReadAndClose,
    /// Reads the request, then says nothing until the client leaves.
    Silence,
    /// Answers with these bytes, then closes.
    Say(Vec<u8>),
    /// The same, a byte every few milliseconds.
    Slowly(Vec<u8>),
}

impl Does {
    /// A whole HTTP answer.
    pub(crate) fn answer(status: u16, headers: &str, body: &[u8]) -> Self {
        let mut bytes = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Does::Say(bytes)
    }
}

/// A server on loopback; serves each connection by the path asked for, or by its only behaviour.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(does: Does) -> Self {
        Server::routes(vec![("", does)]).await
    }

    /// The first route whose path begins the request's path serves it.
    pub(crate) async fn routes(routes: Vec<(&'static str, Does)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        let routes = Arc::new(routes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, routes.clone(), requests.clone()));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, routes: Arc<Vec<(&'static str, Does)>>, requests: Arc<Mutex<Vec<String>>>) {
    if matches!(routes.as_slice(), [(_, Does::Close)]) {
        return;
    }
    let request = read_request(&mut stream).await;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(request);
    let does = routes
        .iter()
        .find(|(p, _)| path.starts_with(p))
        .map(|(_, does)| does.clone());
    match does.unwrap_or(Does::answer(404, "", b"")) {
        Does::Close | Does::ReadAndClose => {}
        Does::Silence => drop(stream.read(&mut [0; 16]).await),
        Does::Say(bytes) => drop(stream.write_all(&bytes).await),
        Does::Slowly(bytes) => {
            for byte in bytes {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Head and body of one request.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|t| t.split("\r\n").next());
            if body.len() >= length.map_or(0, |t| t.parse().unwrap()) {
                break;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An address where nothing listens.
pub(crate) async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) fn upstream(allow_private: bool) -> Upstream {
    Upstream::with(allow_private, 64 << 10, Duration::from_millis(400)).unwrap()
}

/// A provider that may talk to `host` and has the secret `KEY`.
pub(crate) fn provider(host: impl ToString, webhook_auth: Option<WebhookAuth>) -> LoadedProvider {
    let mut manifest = Manifest::new("test", "1").host(host.to_string()).secret("KEY");
    manifest.webhook_auth = webhook_auth;
    LoadedProvider {
        hosts: manifest.hosts.clone(),
        manifest,
        secrets: HashMap::from([
            ("KEY".to_owned(), Secret::new(SECRET)),
            ("UNDECLARED".to_owned(), Secret::new("other")),
            ("HOOK".to_owned(), Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        ]),
        timeout_ms: 2_000,
        ..LoadedProvider::of("test", Arc::new(Sandbox))
    }
}
