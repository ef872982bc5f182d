//! One file per resource; each has a `router()`.

mod call;
mod create_body;
mod docs;
mod generation_view;
mod generations;
mod models;
mod outputs;
mod stream;
mod submissions;
mod watching;
mod webhooks;

use salvo::Router;

/// All of them.
pub(super) fn router() -> Router {
    Router::new().push(generation_side())
}

/// Everything about generations, with its mount points, authentication and limits. What comes first is tried first:
/// public routes and hot ones before the protected and general ones.
fn generation_side() -> Router {
    Router::new()
        .push(
            Router::with_path("api/v1")
                .push(
                    Router::with_path("generations/async")
                        .push(stream::router())
                        .push(submissions::router()),
                )
                .push(generations_router())
                .push(models::router()),
        )
        .push(generations_router())
        .push(outputs::router())
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
