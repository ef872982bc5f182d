//! `/docs`, `/redoc` and `/openapi.json`: the documentation, readable without any other server. The browser is Swagger
//! UI, whose assets are part of the program; page, style and set-up are ours, so that no script is inline.

use salvo::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use salvo::oapi::endpoint;
use salvo::prelude::Redirect;
use salvo::{Depot, FlowCtrl, Request, Response, Router, handler};
use salvo_oapi::swagger_ui::SwaggerUi;
use std::sync::LazyLock;

use crate::http::openapi;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Swagger UI sets styles on elements; scripts come from this server only and talk to this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      media-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The document as served; it depends on nothing but the program.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document().to_json().unwrap_or_default());

/// All of them.
pub fn router() -> Router {
    Router::new()
        .push(
            Router::with_path("docs")
                .get(docs_page)
                .push(Router::with_path("page.css").get(style))
                .push(Router::with_path("page.js").get(script))
                .push(
                    Router::with_path("ui/{*+tail}")
                        .hoop(kept_for_a_day)
                        .get(SwaggerUi::new("/openapi.json")),
                ),
        )
        .push(Router::with_path("redoc").get(redoc))
        .push(Router::with_path("openapi.json").get(openapi_document))
}

fn send(res: &mut Response, content_type: &'static str, text: &'static str) {
    let headers = res.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    res.replace_body(text.as_bytes().to_vec().into());
}

/// This API, to read and to try
#[endpoint(
    tags("system"),
    responses((status_code = 200, description = "The page", body = String, content_type = "text/html")),
    status_codes(200)
)]
async fn docs_page(res: &mut Response) {
    res.headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    send(res, "text/html; charset=utf-8", PAGE);
}

#[handler]
async fn style(res: &mut Response) {
    send(res, "text/css; charset=utf-8", STYLE);
}

#[handler]
async fn script(res: &mut Response) {
    send(res, "text/javascript; charset=utf-8", SCRIPT);
}

/// Swagger UI's own files change only with the program.
#[handler]
async fn kept_for_a_day(req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    ctrl.call_next(req, depot, res).await;
    if res.status_code.is_none_or(|status| status.is_success()) {
        res.headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    }
}

/// Moved to `/docs`
#[endpoint(
    tags("system"),
    responses((status_code = 302, description = "To /docs")),
    status_codes(302)
)]
async fn redoc(res: &mut Response) {
    res.render(Redirect::found("/docs"));
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
    send(res, "application/json", &DOCUMENT);
}
