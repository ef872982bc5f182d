//! Listening: a socket that can be closed and opened again on the same port while the simulator lives.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use salvo::conn::tcp::TcpAcceptor;
use salvo::{Router, Server};
use tokio::net::{TcpListener, TcpSocket};

use super::api::Api;
use super::state::Inner;

/// Binds the port and serves until the simulator stops. `port` 0 takes a free one.
pub(super) fn start(inner: &Arc<Inner>, port: u16) -> Result<SocketAddr> {
    // This socket never listens. It keeps the port ours while the listener is closed to refuse connections.
    let reservation = socket(SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port))?;
    let address = reservation.local_addr()?;
    let listener = listen(address)?;
    inner.listening.send_replace(true);
    let task = serve(Arc::clone(inner), address, listener, reservation);
    tokio::spawn(inner.stop.clone().run_until_cancelled_owned(task));
    Ok(address)
}

fn socket(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    socket(address)?
        .listen(1024)
        .with_context(|| format!("listen on {address}"))
}

async fn serve(inner: Arc<Inner>, address: SocketAddr, first: TcpListener, _reservation: TcpSocket) {
    let mut open = inner.open.subscribe();
    let mut listener = Some(first);
    loop {
        let ready = listener.take().map_or_else(|| listen(address), Ok);
        let Ok(acceptor) = ready.and_then(|ready| Ok(TcpAcceptor::try_from(ready)?)) else {
            // The port is reserved, so this is a passing shortage (file descriptors).
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        inner.listening.send_replace(true);
        let router = Router::with_path("{**path}").goal(Api(Arc::clone(&inner)));
        let server = Server::new(acceptor).try_serve(router);
        // Dropping the server closes its listener and all its connections.
        tokio::select! {
            _ = server => return,
            _ = open.wait_for(|open| !open) => {}
        }
        inner.listening.send_replace(false);
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
    }
}
