//! One file per resource; each has a `router()`.

use salvo::Router;

/// All of them.
pub(super) fn router() -> Router {
    Router::new()
}
