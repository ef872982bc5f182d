//! FAL's documented failures: which type has which HTTP status, and which of the two body shapes carries it.
//!
//! Model and validation errors are a `detail` array whose items carry `type`; infrastructure errors are a `detail`
//! text with `error_type` beside it and in the header `X-Fal-Error-Type`. There is no failed status in the queue:
//! a failure is `COMPLETED`, and the result URL answers with the status given here.

use serde_json::{Value, json};

/// Why a request did not deliver, in the form FAL answers it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// HTTP status of the result URL and of a direct run.
    pub status: u16,
    /// FAL's machine-readable type, for example `content_policy_violation`.
    pub error_type: String,
    /// Text for people; FAL says never to branch on it.
    pub message: String,
    /// The JSON body.
    pub body: Value,
    /// Infrastructure errors carry `X-Fal-Error-Type`; model errors carry `X-Fal-Retryable`.
    pub infrastructure: bool,
}

/// Errors of the model itself: type, status, message.
const MODEL: &[(&str, u16, &str)] = &[
    ("internal_server_error", 500, "Internal server error"),
    ("generation_timeout", 504, "Generation timed out"),
    ("downstream_service_error", 400, "Downstream service error"),
    ("downstream_service_unavailable", 500, "Downstream service unavailable"),
    (
        "content_policy_violation",
        422,
        "The content could not be processed because it contained material flagged by a content checker.",
    ),
    ("no_media_generated", 422, "No media was generated"),
    ("file_download_error", 422, "Failed to download the file"),
    ("image_load_error", 422, "Failed to load the image"),
    ("face_detection_error", 422, "Could not detect face"),
    ("feature_not_supported", 422, "Feature not supported"),
];

/// Errors of the platform around the model: type, status, message.
const INFRASTRUCTURE: &[(&str, u16, &str)] = &[
    ("request_timeout", 504, "Request timed out"),
    ("startup_timeout", 504, "Runner startup timed out"),
    ("runner_scheduling_failure", 503, "No runner could be scheduled"),
    ("runner_connection_timeout", 503, "Connection to the runner timed out"),
    ("runner_disconnected", 503, "Runner disconnected"),
    ("runner_connection_refused", 503, "Runner refused the connection"),
    ("runner_connection_error", 503, "Connection to the runner failed"),
    ("runner_incomplete_response", 502, "Runner sent an incomplete response"),
    ("runner_server_error", 500, "Runner server error"),
    ("client_disconnected", 499, "Client disconnected"),
    ("client_cancelled", 499, "Request was cancelled"),
    ("bad_request", 400, "Bad request"),
    ("internal_error", 500, "Internal error"),
];

impl Failure {
    /// The documented failure of this type, or `None` if FAL documents no such type.
    #[must_use]
    pub fn of_type(error_type: &str) -> Option<Self> {
        let find =
            |table: &'static [(&'static str, u16, &'static str)]| table.iter().find(|(name, _, _)| *name == error_type);
        if let Some((name, status, message)) = find(MODEL) {
            let item = detail_item(&["body", "prompt"], name, message, json!({}), json!("(input)"));
            return Some(Self {
                status: *status,
                error_type: (*name).to_owned(),
                message: (*message).to_owned(),
                body: json!({ "detail": [item] }),
                infrastructure: false,
            });
        }
        find(INFRASTRUCTURE).map(|(name, status, message)| Self {
            status: *status,
            error_type: (*name).to_owned(),
            message: (*message).to_owned(),
            body: json!({ "detail": message, "error_type": name }),
            infrastructure: true,
        })
    }

    /// A refused input: 422 with one `detail` item per fault. `items` must not be empty.
    #[must_use]
    pub fn validation(items: Vec<Value>) -> Self {
        let first = |key: &str| {
            items
                .first()
                .and_then(|item| item.get(key))
                .and_then(Value::as_str)
                .unwrap_or("value_error")
                .to_owned()
        };
        Self {
            status: 422,
            error_type: first("type"),
            message: first("msg"),
            body: json!({ "detail": items }),
            infrastructure: false,
        }
    }

    /// The response headers that go with it.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        if self.infrastructure {
            let mut headers = vec![("x-fal-error-type", self.error_type.clone())];
            if self.error_type == "request_timeout" {
                headers.push(("x-fal-request-timeout-type", "user".to_owned()));
            }
            headers
        } else {
            vec![("x-fal-retryable", (self.status >= 500).to_string())]
        }
    }
}

/// One item of the `detail` array.
pub(super) fn detail_item(loc: &[&str], error_type: &str, msg: &str, ctx: Value, input: Value) -> Value {
    json!({
        "loc": loc,
        "msg": msg,
        "type": error_type,
        "url": format!("https://docs.fal.ai/errors/#{error_type}"),
        "ctx": ctx,
        "input": input,
    })
}
