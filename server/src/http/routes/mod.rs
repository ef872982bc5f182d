//! One file per resource; each has a `router()`.

pub mod auth;
pub mod credits;
pub mod docs;
pub mod generations;
pub mod models;
pub mod outputs;
pub mod projects;
pub mod stream;
pub mod submissions;
pub mod system;
pub mod user;
pub mod webhooks;

mod call;
mod create_body;
mod generation_view;
mod person;
mod watching;

use salvo::Router;

/// All of them. Salvo tries siblings in order: what is called most comes first.
pub(super) fn router() -> Router {
    Router::new()
        .push(
            Router::with_path("api/v1")
                .push(
                    Router::with_path("generations/async")
                        .push(submissions::router())
                        .push(stream::router()),
                )
                .push(generations_router())
                .push(Router::with_path("credits").push(credits::router()))
                .push(Router::with_path("auth").push(auth::router()))
                .push(Router::with_path("projects").push(projects::router()))
                .push(Router::with_path("user").push(user::router()))
                .push(models::router()),
        )
        .push(outputs::router())
        .push(system::router())
        .push(generations_router())
        .push(webhooks::router())
        .push(docs::router())
}

/// The synchronous routes and the public listing beside them; mounted twice, because the frontend of old was told the
/// wrong base URL once (contract §12).
fn generations_router() -> Router {
    Router::with_path("generations")
        .push(models::supported_router())
        .push(generations::router())
}
