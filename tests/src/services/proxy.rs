//! A TCP proxy that breaks connections on demand.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ports::free_port;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes bytes on.
    Open,
    /// Takes connections and bytes, and passes nothing on until it is open again.
    Paused,
    /// Does not listen.
    Refusing,
}

/// A proxy in front of one address. It runs in the test's runtime and ends with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts calls of [`Self::cut`].
    cuts: watch::Sender<u64>,
    /// Whether the listener exists.
    listening: watch::Sender<bool>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Proxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(target_port: u16) -> Result<Self> {
        let listener = bind_free_port().await?;
        let proxy = Self {
            address: listener.local_addr()?,
            mode: watch::Sender::new(Mode::Open),
            cuts: watch::Sender::new(0),
            listening: watch::Sender::new(true),
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let door = Door {
            address: proxy.address,
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, target_port)),
            mode: proxy.mode.clone(),
            cuts: proxy.cuts.clone(),
            listening: proxy.listening.clone(),
            connections: proxy.connections.clone(),
            stop: proxy.stop.clone(),
        };
        tokio::spawn(proxy.stop.clone().run_until_cancelled_owned(door.keep(listener)));
        Ok(proxy)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Closes every connection, also those on which something is on its way. New ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Nothing passes any more, and nothing is refused either: a black hole.
    pub fn pause(&self) {
        self.mode.send_replace(Mode::Paused);
    }

    /// Passes on again, from where [`Self::pause`] stopped.
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// Closes every connection and refuses new ones, until [`Self::accept`].
    pub async fn refuse(&self) {
        self.mode.send_replace(Mode::Refusing);
        self.wait_until_listening(false).await;
        self.cut();
    }

    /// Takes connections again.
    pub async fn accept(&self) {
        self.mode.send_replace(Mode::Open);
        self.wait_until_listening(true).await;
    }

    async fn wait_until_listening(&self, wanted: bool) {
        let mut listening = self.listening.subscribe();
        // The sender is `self`'s own, so there is always an answer.
        let _ = listening.wait_for(|now| *now == wanted).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind_free_port() -> Result<TcpListener> {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?)).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("bind a port for a proxy"),
        }
    }
}

/// The accepting side.
struct Door {
    address: SocketAddr,
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    listening: watch::Sender<bool>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Door {
    async fn keep(self, first: TcpListener) {
        let mut mode = self.mode.subscribe();
        let mut listener = first;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => Some(accepted),
                () = until(&mut mode, |mode| mode == Mode::Refusing) => None,
            };
            match accepted {
                Some(Ok((client, _))) => self.let_in(client),
                // The client has gone already.
                Some(Err(_)) => {}
                None => {
                    drop(listener);
                    self.listening.send_replace(false);
                    until(&mut mode, |mode| mode != Mode::Refusing).await;
                    listener = self.bind_again().await;
                    self.listening.send_replace(true);
                }
            }
        }
    }

    /// The port was ours a moment ago and nobody takes it by accident.
    async fn bind_again(&self) -> TcpListener {
        loop {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return listener;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    fn let_in(&self, client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        let (target, mode, stop) = (self.target, self.mode.subscribe(), self.stop.clone());
        self.connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = cuts.changed() => {}
                _ = join(client, target, mode) => {}
            }
        });
    }
}

/// Waits for a mode. When the proxy is gone there is no mode any more; the token ends the waiting then.
async fn until(mode: &mut watch::Receiver<Mode>, wanted: impl Fn(Mode) -> bool) {
    if mode.wait_for(|mode| wanted(*mode)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries bytes both ways until one side closes.
async fn join(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) -> Result<()> {
    until(&mut mode, |mode| mode != Mode::Paused).await;
    let server = TcpStream::connect(target).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        carry(from_client, to_server, mode.clone()),
        carry(from_server, to_client, mode)
    )?;
    Ok(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        // What came while the proxy is paused waits here.
        until(&mut mode, |mode| mode != Mode::Paused).await;
        if length == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
