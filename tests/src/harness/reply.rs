//! An answer, read whole, with the assertions that tests make on answers.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What was asked, for messages.
    pub request: String,
    /// HTTP status.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// The bytes of the body.
    pub bytes: Vec<u8>,
}

impl Reply {
    pub(super) async fn read(request: String, response: reqwest::Response) -> reqwest::Result<Self> {
        Ok(Self {
            request,
            status: response.status(),
            headers: response.headers().clone(),
            bytes: response.bytes().await?.to_vec(),
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{}: the body is no JSON ({error}): {}", self.request, self.text()))
    }

    /// A header as text, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}: answered {}",
            self.request,
            self.text()
        );
        self
    }

    /// Asserts 200 and gives the JSON.
    #[track_caller]
    pub fn ok(self) -> Value {
        self.expect(200).json()
    }

    /// Asserts a problem document (RFC 9457 with our members) and gives it.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let reply = self.expect(status);
        let request = &reply.request;
        assert!(
            reply.header("content-type").starts_with("application/problem+json"),
            "{request}: content type {}",
            reply.header("content-type")
        );
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{request}: {problem}");
        assert_eq!(problem["status"], status, "{request}: {problem}");
        for member in ["type", "title", "detail", "request_id"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{request}: no `{member}` in {problem}");
        }
        assert_eq!(problem["request_id"], reply.header("x-request-id"), "{request}");
        if status == 401 {
            assert!(
                reply.header("www-authenticate").starts_with("Bearer"),
                "{request}: no WWW-Authenticate"
            );
        }
        if status == 429 {
            let seconds: u64 = reply.header("retry-after").parse().unwrap_or_default();
            assert!(seconds > 0, "{request}: no Retry-After");
        }
        problem
    }

    /// Asserts a 422 that names a field, written with dots (`body.parameters.num_images`).
    #[track_caller]
    pub fn invalid(self, field: &str) -> Value {
        let request = self.request.clone();
        let problem = self.problem(422, "validation_failed");
        let named = fields(&problem);
        assert!(
            named.iter().any(|name| name == field),
            "{request}: `{field}` is not among {named:?}"
        );
        problem
    }
}

/// The fields that a problem names, written with dots (`body.parameters.num_images`), in its order.
#[must_use]
pub fn fields(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array();
    let errors = errors.unwrap_or_else(|| panic!("no `errors` in {problem}"));
    let dotted = |error: &Value| {
        for member in ["msg", "type"] {
            assert!(error[member].is_string(), "{error}");
        }
        let parts = error["loc"].as_array().unwrap_or_else(|| panic!("no `loc` in {error}"));
        let parts: Vec<String> = parts
            .iter()
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect();
        parts.join(".")
    };
    errors.iter().map(dotted).collect()
}
