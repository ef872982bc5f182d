//! One file per resource; each has a `router()`.

pub mod account;
mod auth;
pub mod credits;
pub mod projects;
pub mod system;
pub mod user;

mod call;
mod checkout_pages;
mod create_body;
mod docs;
mod export;
mod generation_view;
mod generations;
mod keys;
mod models;
mod operator;
mod outputs;
pub(super) mod person;
mod provider_state;
mod purchases;
mod stream;
mod submissions;
mod watching;
mod webhooks;

pub use system::{COMMIT, VERSION};

use salvo::Router;

/// All of them. Salvo tries siblings in order: public routes and hot ones before the protected and general ones.
pub(super) fn router() -> Router {
    Router::new()
        .push(
            Router::with_path("api/v1")
                .push(
                    Router::with_path("generations/async")
                        .push(stream::router())
                        .push(submissions::router()),
                )
                .push(generations_router())
                .push(models::router())
                .push(Router::with_path("credits").push(credits::router()))
                .push(purchases::webhook_router())
                .push(
                    Router::with_path("auth")
                        .push(auth::router())
                        .push(account::auth_router()),
                )
                .push(Router::with_path("keys").push(keys::router()))
                .push(Router::with_path("projects").push(projects::router()))
                .push(
                    Router::with_path("user")
                        .push(export::router())
                        .push(account::user_router())
                        .push(user::router()),
                )
                .push(Router::with_path("operator").push(operator::router())),
        )
        .push(system::router())
        .push(generations_router())
        .push(outputs::router())
        .push(webhooks::router())
        .push(docs::router())
}

/// What a process with the role `worker` serves: probes and scrapes.
pub(super) fn worker_router() -> Router {
    Router::new()
        .push(system::probes())
        .push(Router::with_path("{**rest}").goal(system::only_a_worker))
}

/// What is on the port of the metrics: probes and scrapes, whatever the role.
pub(super) fn metrics_router() -> Router {
    system::probes()
}

/// In front of the other routes where metrics have a port of their own: they are not shown to the world.
pub(super) fn metrics_elsewhere() -> Router {
    Router::with_path("metrics").goal(system::metrics_elsewhere)
}

/// The synchronous routes and the public listing beside them; mounted twice, because the frontend of old was told the
/// wrong base URL once (contract §12).
fn generations_router() -> Router {
    Router::with_path("generations")
        .push(models::supported_router())
        .push(generations::router())
}
