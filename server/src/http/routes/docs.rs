//! `/docs`, `/redoc` and `/openapi.json`: the documentation, readable without any other server.

use salvo::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use salvo::oapi::endpoint;
use salvo::prelude::Redirect;
use salvo::{Response, Router};
use std::sync::LazyLock;

use crate::http::openapi;

/// The document as served; it depends on nothing but the program.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document().to_json().unwrap_or_default());

/// The three of them.
pub fn router() -> Router {
    Router::new()
        .push(Router::with_path("openapi.json").get(openapi_document))
        .push(Router::with_path("redoc").get(redoc))
}

/// This document
///
/// OpenAPI 3.1.
#[endpoint(
    tags("system"),
    responses((status_code = 200, description = "The document", body = serde_json::Value, content_type = "application/json")),
    status_codes(200)
)]
async fn openapi_document(res: &mut Response) {
    res.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    res.headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    res.replace_body(DOCUMENT.as_bytes().to_vec().into());
}

/// Moved to `/docs`
#[endpoint(
    tags("system"),
    responses((status_code = 302, description = "To /docs/")),
    status_codes(302)
)]
async fn redoc(res: &mut Response) {
    res.render(Redirect::found("/docs/"));
}
