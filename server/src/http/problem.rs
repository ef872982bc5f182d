//! Every error a client can see: RFC 9457 problem documents.
//!
//! `detail` is always a string that says what to fix; `code` is for programs; `request_id` finds the log line; on 422
//! `errors` names each field and its rule. Internal text has no path into a body: a [`Problem`] is built from public
//! text only, and what really happened is logged where it is turned into one.

use salvo::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use salvo::http::{ParseError, StatusCode};
use salvo::oapi::{
    Components, Content, EndpointOutRegister, Object, Operation, RefOr, Response as OapiResponse, Schema, ToSchema,
};
use salvo::{Response, Scribe};
use serde::Serialize;

use crate::auth::{AuthError, Refusal};
use crate::catalog::ParamFault;
use crate::store::StoreError;

/// Header that carries the request id; a hoop sets it before any handler runs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)+) => {
        /// Machine codes of problems; part of the API, never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)+
        }

        impl Code {
            /// All of them, for the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$name),+];

            /// HTTP status, wire form and title.
            fn table(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Code::$name => (StatusCode::$status, $code, $title),)+
                }
            }
        }
    };
}

codes! {
    /// The request cannot be read.
    BadRequest = BAD_REQUEST, "bad_request", "The request cannot be read";
    /// No token, or not a valid one.
    Unauthorized = UNAUTHORIZED, "unauthorized", "Authentication is required";
    /// Wrong e-mail or password.
    InvalidCredentials = UNAUTHORIZED, "invalid_credentials", "E-mail or password is wrong";
    /// Not enough credits.
    InsufficientCredits = PAYMENT_REQUIRED, "insufficient_credits", "Not enough credits";
    /// The API key has spent what it may.
    KeyCapReached = PAYMENT_REQUIRED, "key_cap_reached", "The API key's spending cap is reached";
    /// The account is suspended.
    AccountSuspended = FORBIDDEN, "account_suspended", "The account is suspended";
    /// The API key may not do this.
    InsufficientScope = FORBIDDEN, "insufficient_scope", "The API key may not do this";
    /// Known, but not allowed.
    Forbidden = FORBIDDEN, "forbidden", "Not allowed";
    /// The account waits for its mail to be confirmed.
    EmailNotConfirmed = FORBIDDEN, "email_not_confirmed", "The e-mail is not confirmed";
    /// The account service has banned the account.
    AccountBanned = FORBIDDEN, "account_banned", "The account is banned";
    /// The account service lets nobody register.
    RegistrationClosed = FORBIDDEN, "registration_closed", "Registration is closed";
    /// The account service lets nobody sign in this way.
    LoginClosed = FORBIDDEN, "login_closed", "This way to sign in is closed";
    /// Missing, or somebody else's.
    NotFound = NOT_FOUND, "not_found", "Not found";
    /// The path exists for other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed";
    /// The client accepts nothing we have.
    NotAcceptable = NOT_ACCEPTABLE, "not_acceptable", "Nothing acceptable";
    /// The e-mail is registered.
    EmailTaken = CONFLICT, "email_taken", "E-mail already registered";
    /// This person has used the code as often as one may.
    CodeAlreadyRedeemed = CONFLICT, "code_already_redeemed", "The code was redeemed before";
    /// Not possible in the present state.
    Conflict = CONFLICT, "conflict", "Not possible now";
    /// The code was good once.
    CodeExpired = GONE, "code_expired", "The code has expired";
    /// All uses of the code are used.
    CodeUsedUp = GONE, "code_used_up", "The code is used up";
    /// The condition the client sent does not hold.
    PreconditionFailed = PRECONDITION_FAILED, "precondition_failed", "The condition does not hold";
    /// The body is larger than allowed.
    TooLarge = PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large";
    /// The body's media type is not one this route reads.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Media type not supported";
    /// The file has no such part.
    RangeNotSatisfiable = RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "No such part";
    /// Understood, but some fields break their rules.
    Invalid = UNPROCESSABLE_ENTITY, "validation_failed", "Some fields are not valid";
    /// The model is not in the registry.
    UnknownModel = UNPROCESSABLE_ENTITY, "unknown_model", "Unknown model";
    /// The model is in the registry, but this server cannot run it. The client's to fix, by another model: trying again
    /// does not help, and no alarm on 5xx should ring.
    ModelUnavailable = UNPROCESSABLE_ENTITY, "model_unavailable", "The model is not available";
    /// No payment provider is configured. As with a model that is not available: trying again does not help.
    PurchasesNotConfigured = UNPROCESSABLE_ENTITY, "purchases_not_configured", "Nothing can be bought here";
    /// The idempotency key belongs to another request.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency key reused";
    /// Too many requests.
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    /// Ours to fix.
    Internal = INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side";
    /// Planned, but not in this version.
    NotImplemented = NOT_IMPLEMENTED, "not_implemented", "Not available yet";
    /// An operator lets nothing new in.
    Draining = SERVICE_UNAVAILABLE, "draining", "Nothing new is taken at present";
    /// Something we need is down.
    Unavailable = SERVICE_UNAVAILABLE, "service_unavailable", "Temporarily unavailable";
    /// Something we need took too long.
    GatewayTimeout = GATEWAY_TIMEOUT, "gateway_timeout", "No answer in time";
    /// The payment provider does not answer, or does not take our request.
    PaymentUnavailable = SERVICE_UNAVAILABLE, "payment_provider_unavailable", "The payment provider is not available";
}

impl Code {
    /// HTTP status.
    pub fn status(self) -> StatusCode {
        self.table().0
    }

    /// Wire form.
    pub fn as_str(self) -> &'static str {
        self.table().1
    }

    /// Title for people.
    pub fn title(self) -> &'static str {
        self.table().2
    }
}

/// One broken field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path to the field, for example `["body", "parameters", "num_images"]`.
    pub loc: Vec<String>,
    /// The rule and the fix.
    pub msg: String,
    /// Machine code of the rule.
    #[serde(rename = "type")]
    pub kind: String,
}

impl FieldError {
    /// A broken field.
    pub fn new(loc: &[&str], msg: impl Into<String>, kind: &str) -> Self {
        FieldError {
            loc: loc.iter().map(|s| (*s).to_owned()).collect(),
            msg: msg.into(),
            kind: kind.into(),
        }
    }
}

/// An error as the client sees it.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u64>,
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem with a public sentence that says what to fix.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// Another user's resource and a missing one are the same.
    pub fn not_found(what: &str) -> Self {
        Problem::new(Code::NotFound, format!("{what} not found"))
    }

    /// One broken field.
    pub fn field(loc: &[&str], msg: impl Into<String>, kind: &str) -> Self {
        Problem::fields(vec![FieldError::new(loc, msg, kind)])
    }

    /// All broken fields at once.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|e| format!("{}: {}", e.loc.join("."), e.msg))
            .collect::<Vec<_>>()
            .join("; ");
        Problem {
            errors,
            ..Problem::new(Code::Invalid, detail)
        }
    }

    /// Broken parts of a model call; `root` is where the call came from, `body` or `query`.
    pub fn call(root: &str, faults: Vec<ParamFault>) -> Self {
        let located = |f: ParamFault| FieldError {
            loc: std::iter::once(root.to_owned()).chain(f.loc).collect(),
            msg: f.msg,
            kind: f.fault.to_owned(),
        };
        Problem::fields(faults.into_iter().map(located).collect())
    }

    /// Ours to fix: logs what happened and shows nothing of it.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(error = %error, "request failed");
        Problem::new(
            Code::Internal,
            "An internal error was recorded; quote the request id when you report it",
        )
    }

    /// The problem of an error status that nobody has explained.
    pub(super) fn for_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::UNAUTHORIZED => (Code::Unauthorized, "Missing authentication token"),
            StatusCode::PAYMENT_REQUIRED => (Code::InsufficientCredits, "Not enough credits"),
            StatusCode::FORBIDDEN => (Code::Forbidden, "Not allowed"),
            StatusCode::NOT_FOUND => (
                Code::NotFound,
                "There is nothing at this path; /docs lists the operations",
            ),
            StatusCode::METHOD_NOT_ALLOWED => (
                Code::MethodNotAllowed,
                "See the Allow header for the methods of this path",
            ),
            StatusCode::NOT_ACCEPTABLE => (Code::NotAcceptable, "Accept application/json"),
            StatusCode::CONFLICT => (Code::Conflict, "Not possible in the present state"),
            StatusCode::PRECONDITION_FAILED => (
                Code::PreconditionFailed,
                "The file is not the one of the ETag or time that was sent",
            ),
            StatusCode::RANGE_NOT_SATISFIABLE => (
                Code::RangeNotSatisfiable,
                "Send one range within the file, such as bytes=0-1023; Content-Range says how long it is",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "The body is larger than this route accepts"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (Code::UnsupportedMediaType, "Send the body as application/json"),
            StatusCode::UNPROCESSABLE_ENTITY => (Code::Invalid, "Some fields are not valid"),
            StatusCode::TOO_MANY_REQUESTS => (Code::RateLimited, "Too many requests; slow down"),
            StatusCode::NOT_IMPLEMENTED => (Code::NotImplemented, "Not available yet"),
            StatusCode::SERVICE_UNAVAILABLE => (Code::Unavailable, "Temporarily unavailable; try again"),
            StatusCode::GATEWAY_TIMEOUT => (Code::GatewayTimeout, "No answer in time; try again"),
            status if status.is_client_error() => (Code::BadRequest, "The request cannot be read"),
            _ => (
                Code::Internal,
                "An internal error was recorded; quote the request id when you report it",
            ),
        };
        Problem::new(code, detail)
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// Names the fields that caused it.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The machine code.
    pub fn code(&self) -> Code {
        self.code
    }
}

/// The members of the document, in the order they are written.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Scribe for Problem {
    fn render(self, res: &mut Response) {
        let request_id = res
            .headers()
            .get(REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let document = Document {
            r#type: format!("urn:velro:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id: &request_id,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        res.status_code(self.status());
        if let Some(seconds) = self.retry_after_seconds {
            res.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            res.headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"api\""));
        }
        res.headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        res.replace_body(body.into());
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let error = anyhow::Error::from(error);
        match error.downcast_ref::<StoreError>() {
            Some(StoreError::Unavailable(_)) => {
                tracing::warn!(error = format!("{error:#}"), "the store is not available");
                Problem::new(
                    Code::Unavailable,
                    "The database is not available at the moment; try again",
                )
                .retry_after(2)
            }
            _ => Problem::internal(format!("{error:#}")),
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::EmailTaken => Problem::new(Code::EmailTaken, "Email already registered"),
            AuthError::InvalidCredentials => Problem::new(Code::InvalidCredentials, "Invalid email or password"),
            AuthError::InvalidToken => Problem::new(Code::Unauthorized, "Invalid or expired token"),
            AuthError::Busy => Problem::new(
                Code::Unavailable,
                "Too many people are signing in at the moment; try again",
            )
            .retry_after(2),
            AuthError::WeakPassword(rules) if rules.is_empty() => {
                weak_password(&["does not keep the rules of the account service; choose a longer one"])
            }
            AuthError::WeakPassword(rules) => weak_password(&rules),
            AuthError::Refused(refusal) => refusal.into(),
            AuthError::Limited { retry_after_seconds } => Problem::new(
                Code::RateLimited,
                "The account service has had too many requests; try again later",
            )
            .retry_after(retry_after_seconds),
            AuthError::ServiceAway => {
                Problem::new(Code::Unavailable, "Authentication service unavailable; try again").retry_after(2)
            }
            AuthError::ServiceSlow => {
                Problem::new(Code::GatewayTimeout, "Authentication service timeout").retry_after(2)
            }
            AuthError::Store(error) => error.into(),
            AuthError::Internal(error) => Problem::internal(format!("{error:#}")),
        }
    }
}

/// All broken rules of one password.
fn weak_password(rules: &[&str]) -> Problem {
    let fault = |rule: &&str| FieldError::new(&["body", "password"], *rule, "weak_password");
    Problem::fields(rules.iter().map(fault).collect())
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, detail) = match refusal {
            Refusal::EmailNotConfirmed => (
                Code::EmailNotConfirmed,
                "Open the link in the confirmation mail that was sent to this address, then log in",
            ),
            Refusal::ConfirmationSent => (
                Code::EmailNotConfirmed,
                "The account was created; open the link in the mail that was sent to this address, then log in",
            ),
            Refusal::Banned => (Code::AccountBanned, "This account is banned; ask the operator why"),
            Refusal::RegistrationClosed => (
                Code::RegistrationClosed,
                "Nobody can register at the moment; ask the operator for an account",
            ),
            Refusal::LoginClosed => (
                Code::LoginClosed,
                "Signing in with e-mail and password is switched off; use another way to sign in",
            ),
            Refusal::Captcha => (
                Code::LoginClosed,
                "The account service asks for a captcha here: sign in through its own client and use that token",
            ),
            Refusal::StrongerSignIn => (
                Code::Forbidden,
                "The account service asks for a second or a fresh proof first: do this through its own client",
            ),
            Refusal::EmailRefused => {
                let rule = "is not accepted by the account service; use another address";
                return Problem::field(&["body", "email"], rule, "email");
            }
        };
        Problem::new(code, detail)
    }
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::PayloadTooLarge => Problem::new(Code::TooLarge, "The body is larger than this route accepts"),
            other => {
                tracing::debug!(error = %other, "unreadable request");
                Problem::new(Code::BadRequest, "The request cannot be read")
            }
        }
    }
}

/// Schema of the document in `/openapi.json`; named once, referred to by every operation.
impl ToSchema for Problem {
    fn to_schema(components: &mut Components) -> RefOr<Schema> {
        let text = || Object::new().schema_type(salvo::oapi::BasicType::String);
        let field = Object::new()
            .property("loc", salvo::oapi::Array::new().items(text()))
            .property("msg", text())
            .property("type", text())
            .required("loc")
            .required("msg")
            .required("type");
        let schema = Object::new()
            .description("RFC 9457 problem document")
            .property("type", text())
            .property("title", text())
            .property("status", Object::new().schema_type(salvo::oapi::BasicType::Integer))
            .property("detail", text())
            .property(
                "code",
                text().enum_values(
                    Code::ALL
                        .iter()
                        .map(|c| c.as_str())
                        .collect::<std::collections::BTreeSet<_>>(),
                ),
            )
            .property("request_id", text())
            .property("errors", salvo::oapi::Array::new().items(field))
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("code")
            .required("request_id");
        components.schemas.insert("Problem", Schema::from(schema));
        RefOr::Ref(salvo::oapi::Ref::from_schema_name("Problem"))
    }
}

impl EndpointOutRegister for Problem {
    fn register(components: &mut Components, operation: &mut Operation) {
        let schema = Problem::to_schema(components);
        for (status, description) in [
            ("400", "The request cannot be read"),
            ("401", "No valid token"),
            ("402", "Not enough credits"),
            ("403", "Not allowed"),
            ("404", "Not found"),
            ("409", "Not possible now"),
            ("412", "The condition does not hold"),
            ("413", "The body is too large"),
            ("415", "Media type not supported"),
            ("416", "The file has no such part"),
            ("422", "Some fields are not valid"),
            ("429", "Too many requests"),
            ("500", "Ours to fix"),
            ("501", "Not available yet"),
            ("503", "Temporarily unavailable"),
            ("504", "No answer in time"),
        ] {
            let content = Content::new(schema.clone());
            operation.responses.insert(
                status,
                OapiResponse::new(description).add_content("application/problem+json", content),
            );
        }
    }
}
