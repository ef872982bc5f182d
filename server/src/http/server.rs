//! Serves the REST surface on a listener until it is told to stop.

use salvo::Service;
use salvo::conn::tcp::TcpAcceptor;
use salvo::fuse::FuseConfig;
use salvo::prelude::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

use super::{Services, metrics_service, service};

/// How long a client may pause while it sends a body.
const BODY_GAP: Duration = Duration::from_secs(30);

/// How long a client may take nothing of what is sent to it; streams have a heartbeat every quarter of that.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// Serves until `services.shutdown` is cancelled; then takes no new connections and returns when the requests in flight
/// have ended or [`Config::drain_time`](crate::config::Config::drain_time) is over.
pub async fn serve(listener: TcpListener, services: Arc<Services>) -> std::io::Result<()> {
    let routes = service(Arc::clone(&services));
    serve_routes(listener, services, routes).await
}

/// The same for probes and metrics alone, where they have a port of their own.
pub async fn serve_metrics(listener: TcpListener, services: Arc<Services>) -> std::io::Result<()> {
    let routes = metrics_service(Arc::clone(&services));
    serve_routes(listener, services, routes).await
}

async fn serve_routes(listener: TcpListener, services: Arc<Services>, routes: Service) -> std::io::Result<()> {
    let fuse = FuseConfig::default()
        .with_request_body_timeout(BODY_GAP)
        .with_write_stall_timeout(WRITE_STALL);
    let server = Server::new(TcpAcceptor::try_from(listener)?)
        .max_connections(services.config.max_connections)
        .fuse_config(fuse);
    let handle = server.handle();
    let (stop, grace) = (services.shutdown.clone(), services.config.drain_time());
    let stopper = tokio::spawn(async move {
        stop.cancelled().await;
        handle.stop_graceful(grace);
    });
    let served = server.try_serve(routes).await;
    stopper.abort();
    served
}
