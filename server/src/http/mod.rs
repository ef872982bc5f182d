//! The REST surface: the only module that knows Salvo and public JSON.
//!
//! One file per resource in [`routes`]; [`problem`] has every error, [`input`] reads requests. Domain types never derive
//! the public JSON: each route writes its own and converts by hand.

pub mod openapi;
pub mod problem;
pub mod routes;

mod caller;
mod hoops;
mod input;
mod limits;
mod operator;
mod rendered;
mod room;
mod scopes;
mod server;

use salvo::Service;
use salvo::routing::Router;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::catalog::Shelf;
use crate::clock;
use crate::config::Config;
use crate::config::watch::RegistryHealth;
use crate::intake::Intake;
use crate::outputs::Outputs;
use crate::pause::Pauses;
use crate::payments::Payments;
use crate::provider::ProviderShelf;
use crate::queue::Queue;
use crate::queue::live::Live;
use crate::shared::Link;
use crate::store::{Store, StoreError, SystemCounts};
use crate::telemetry::{LogLevels, Metrics};
use crate::upstream::{Upstream, WebhookVerifier};

pub use caller::Caller;
pub use limits::{Key, Left, Policy, RateLimiter, Spent};
pub use rendered::Listings;
pub use routes::{COMMIT, VERSION};
pub use server::{serve, serve_metrics};

/// What the handlers work with; one for the process, in the depot of every request.
#[allow(missing_docs)]
pub struct Services {
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub shelf: Arc<Shelf>,
    pub providers: Arc<ProviderShelf>,
    pub queue: Arc<dyn Queue>,
    pub live: Arc<Live>,
    pub intake: Arc<Intake>,
    pub outputs: Arc<Outputs>,
    pub payments: Arc<Payments>,
    pub auth: Arc<Auth>,
    pub metrics: Arc<Metrics>,
    /// How much this process logs.
    pub levels: Arc<LogLevels>,
    /// What operators have stopped.
    pub pauses: Arc<Pauses>,
    /// Fetches what a provider delivered, when an operator says so.
    pub upstream: Arc<Upstream>,
    /// Checks who signed a webhook.
    pub webhooks: Arc<WebhookVerifier>,
    /// Whether the file of the registry is the one in use.
    pub registry_health: Arc<RegistryHealth>,
    /// Cancelled when the process is told to stop: it is not ready any more, and keeps no connection open.
    pub leaving: CancellationToken,
    /// Cancelled when the server drains, at once or after [`Config::shutdown_delay`]: open streams end.
    pub shutdown: CancellationToken,
    pub limiter: Arc<RateLimiter>,
    /// Listings of models, rendered.
    pub listings: Listings,
    /// The way to Redis, where there is one.
    pub link: Option<Link>,
}

impl Services {
    /// Counts for the operator, by the patience of the models in use.
    pub async fn counts(&self) -> Result<SystemCounts, StoreError> {
        let too_old = clock::now().minus(self.shelf.get().longest_deadline());
        self.store.system_counts(too_old).await
    }
}

/// Every route with its hoops, but without the services: what the documentation is made from.
///
/// Both spellings of a path, with and without a trailing slash, are the same route.
pub fn router() -> Router {
    Router::new().filter(hoops::HeadIsGet).push(routes::router())
}

/// What a process of the configured role serves, ready to be served or tested.
pub fn service(services: Arc<Services>) -> Service {
    let metrics_are_elsewhere = services.config.metrics_port.is_some();
    let router = match services.config.role.serves_api() {
        true => router(),
        false => Router::new().filter(hoops::HeadIsGet).push(routes::worker_router()),
    };
    let service = match metrics_are_elsewhere {
        true => Service::new(Router::new().push(routes::metrics_elsewhere()).push(router)),
        false => Service::new(router),
    };
    hoops::wrap(service, services)
}

/// What is served on the port of the metrics, where they have one.
pub fn metrics_service(services: Arc<Services>) -> Service {
    let router = Router::new().filter(hoops::HeadIsGet).push(routes::metrics_router());
    hoops::wrap(Service::new(router), services)
}

#[cfg(test)]
mod tests;
