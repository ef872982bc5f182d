//! The REST surface: the only module that knows Salvo and public JSON.
//!
//! One file per resource in [`routes`]; [`problem`] has every error, [`input`] reads requests. Domain types never derive
//! the public JSON: each route writes its own and converts by hand.

pub mod problem;
pub mod routes;

mod caller;
mod input;

use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::catalog::Shelf;
use crate::config::Config;
use crate::intake::Intake;
use crate::outputs::Outputs;
use crate::provider::ProviderShelf;
use crate::queue::Queue;
use crate::queue::live::Live;
use crate::store::Store;
use crate::telemetry::Metrics;

pub use caller::Caller;

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
    pub auth: Arc<Auth>,
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server drains: open streams end.
    pub shutdown: CancellationToken,
}
