//! One file per resource; each has a `router()`.

pub mod auth;
pub mod credits;
pub mod projects;
pub mod system;
pub mod user;

mod person;

use salvo::Router;

/// All of them. Salvo tries siblings in order: what is called most comes first.
pub(super) fn router() -> Router {
    Router::new()
        .push(
            Router::with_path("api/v1")
                .push(Router::with_path("credits").push(credits::router()))
                .push(Router::with_path("auth").push(auth::router()))
                .push(Router::with_path("projects").push(projects::router()))
                .push(Router::with_path("user").push(user::router())),
        )
        .push(system::router())
}
