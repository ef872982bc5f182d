//! The smallest server of the same framework, as a process of its own: what a request costs before anything is done for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use salvo::conn::tcp::TcpListener;
use salvo::writing::Json;
use salvo::{Listener as _, Router, Server, handler};
use serde_json::{Value, json};
use tests::ports::free_port;

use crate::cpu::Whose;

/// The argument that makes `bench` this server.
pub const ARGUMENT: &str = "hello";

#[handler]
async fn greet() -> Json<Value> {
    Json(json!({ "message": "Hello, world!" }))
}

/// Serves until it is killed.
///
/// # Errors
/// If the port cannot be bound.
pub async fn serve(port: u16) -> Result<()> {
    let acceptor = TcpListener::new((Ipv4Addr::LOCALHOST, port)).try_bind().await?;
    Server::new(acceptor).try_serve(Router::new().get(greet)).await?;
    Ok(())
}

/// The process; killed when dropped.
#[derive(Debug)]
pub struct Hello {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Hello {
    /// Starts this program once more, as the server.
    ///
    /// # Errors
    /// If it does not listen within ten seconds.
    pub async fn start() -> Result<Self> {
        let port = free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, &port.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("start this program once more")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let hello = Self { address, child };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            ensure!(
                began.elapsed() < Duration::from_secs(10),
                "the small server does not listen"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(hello)
    }

    /// Its CPU time.
    #[must_use]
    pub fn cpu(&self) -> Whose {
        Whose::Process(self.child.id())
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
