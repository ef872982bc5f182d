//! A client's call before the model's own rules: what was sent as JSON or as a form, its idempotency key, and what the
//! intake answers.

use salvo::Request;
use salvo::oapi::ToSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::catalog::ClientCall;
use crate::http::problem::{Code, FieldError, Problem, Result};
use crate::http::scopes::check_model;
use crate::http::{Caller, Services};
use crate::id::ProjectId;
use crate::intake::{self, Accepted, Refusal};
use crate::store::IdempotencyKey;
use crate::upstream::names_public_host;

/// Longest `Idempotency-Key`, in characters.
const KEY_MAX_CHARS: usize = 255;
/// Most characters of all parameters together, as JSON text.
pub const PARAMETERS_MAX_CHARS: usize = 10_000;
/// When to try again while nothing new is taken.
const DRAINING_RETRY_SECONDS: u64 = 30;
/// Most characters of a parameter's name.
const PARAMETER_NAME_MAX_CHARS: usize = 100;

/// What to generate.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[salvo(schema(name = "GenerationCall", example = json!({
    "model_id": "sandbox/image", "prompt": "a lighthouse in the fog", "parameters": {"image_size": "square"}
})))]
pub struct CallBody {
    /// Id of a model from one of the listings.
    #[salvo(schema(min_length = 1, max_length = 100, example = json!("sandbox/image")))]
    pub model_id: String,
    /// What to show; each model says how long it may be.
    #[salvo(schema(min_length = 1, example = json!("a lighthouse in the fog")))]
    pub prompt: String,
    /// What to avoid, where the model supports it.
    #[serde(default)]
    pub negative_prompt: Option<String>,
    /// A picture to start from, where the model supports it; http or https.
    #[serde(default)]
    pub reference_image_url: Option<String>,
    /// The model's own parameters; unknown names are dropped and named in the answer.
    #[serde(default)]
    #[salvo(schema(value_type = Option<Object>))]
    pub parameters: Option<Map<String, Value>>,
    /// One of your projects.
    #[serde(default)]
    #[salvo(schema(format = "uuid"))]
    pub project_id: Option<String>,
}

/// A call whose texts are clean; the model's rules come next.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// As sent.
    pub model_id: String,
    /// Line ends are `\n`.
    pub prompt: String,
    /// Line ends are `\n`; an empty one is none.
    pub negative_prompt: Option<String>,
    /// As sent, or the URL of an upload; an empty one is none.
    pub reference_image_url: Option<String>,
    /// As sent.
    pub parameters: Map<String, Value>,
    /// Whether it is the caller's is for the store to say.
    pub project_id: Option<ProjectId>,
    /// SHA-256 of an uploaded reference image, hex: its URL is a new one each time, its content is not.
    pub upload_sha256: Option<String>,
}

impl CallBody {
    /// Everything that is wrong with the texts at once, or the call.
    pub fn clean(self) -> Result<Call> {
        let mut errors = Vec::new();
        let mut text = |name: &str, value: &str| {
            let (clean, error) = clean_text(name, value);
            errors.extend(error);
            clean
        };
        let prompt = text("prompt", &self.prompt);
        let negative_prompt = self.negative_prompt.map(|t| text("negative_prompt", &t));
        let parameters = self.parameters.unwrap_or_default();
        errors.extend(check_parameters(&parameters));
        let project_id = match self.project_id.as_deref().map(str::trim).filter(|t| !t.is_empty()) {
            None => None,
            Some(id) => id
                .parse()
                .map_err(|_| errors.push(FieldError::new(&["body", "project_id"], "must be a UUID", "uuid")))
                .ok(),
        };
        if !errors.is_empty() {
            return Err(Problem::fields(errors));
        }
        Ok(Call {
            model_id: self.model_id,
            prompt,
            negative_prompt: negative_prompt.filter(|t| !t.trim().is_empty()),
            reference_image_url: self.reference_image_url.filter(|t| !t.trim().is_empty()),
            parameters,
            project_id,
            upload_sha256: None,
        })
    }
}

/// Forms send `\r\n`; no other control character than newline and tab has a place in a prompt.
fn clean_text(name: &str, value: &str) -> (String, Option<FieldError>) {
    let text = value.replace("\r\n", "\n");
    let bad = text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    let error = bad.then(|| {
        FieldError::new(
            &["body", name],
            "must not contain control characters other than newline and tab",
            "control_character",
        )
    });
    (text, error)
}

/// Bounds that hold for every model, known parameter or not: names end up in our answers.
fn check_parameters(parameters: &Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let size = serde_json::to_string(parameters).map_or(0, |text| text.chars().count());
    if size > PARAMETERS_MAX_CHARS {
        errors.push(FieldError::new(
            &["body", "parameters"],
            format!("must be at most {PARAMETERS_MAX_CHARS} characters of JSON in all"),
            "too_long",
        ));
    }
    if parameters
        .keys()
        .any(|k| k.chars().count() > PARAMETER_NAME_MAX_CHARS || k.chars().any(char::is_control))
    {
        errors.push(FieldError::new(
            &["body", "parameters"],
            format!("names must be at most {PARAMETER_NAME_MAX_CHARS} characters without control characters"),
            "name",
        ));
    }
    errors
}

impl Call {
    /// What the catalog checks.
    pub fn client_call(&self) -> ClientCall<'_> {
        ClientCall {
            prompt: &self.prompt,
            negative_prompt: self.negative_prompt.as_deref(),
            reference_image_url: self.reference_image_url.as_deref(),
            parameters: &self.parameters,
        }
    }

    /// SHA-256 of the call in canonical form (sorted keys, no spaces, absent members `null`), hex. The same for a call
    /// however it was sent.
    pub fn fingerprint(&self) -> String {
        let reference = match &self.upload_sha256 {
            Some(sha256) => json!({ "sha256": sha256 }),
            None => json!(self.reference_image_url),
        };
        let canonical = json!({
            "model_id": self.model_id,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "reference_image": reference,
            "parameters": self.parameters,
            "project_id": self.project_id,
        });
        hex::encode(Sha256::digest(canonical.to_string()))
    }

    /// Refuses a reference image on this machine or in a private network: no provider is sent there. The URL of an
    /// upload is our own.
    pub fn check_reference(&self, allow_private: bool) -> Result<()> {
        let given = self
            .reference_image_url
            .as_deref()
            .filter(|_| self.upload_sha256.is_none());
        // What is no URL at all, the catalog explains.
        match given.and_then(|text| url::Url::parse(text.trim()).ok()) {
            Some(url) if !names_public_host(&url, allow_private) => Err(Problem::field(
                &["body", "reference_image_url"],
                "must be on the public internet; upload the image as reference_image to POST /api/v1/generations instead",
                "private_address",
            )),
            _ => Ok(()),
        }
    }

    /// Submits the call for `caller`.
    pub async fn submit(
        &self,
        services: &Services,
        caller: &Caller,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Accepted> {
        check_model(caller.key.as_deref(), &self.model_id)?;
        self.check_reference(services.config.upstream_allow_private)?;
        let request = intake::Request {
            user_id: caller.user_id,
            project_id: self.project_id,
            model_id: &self.model_id,
            call: self.client_call(),
            idempotency,
            api_key_id: caller.key.as_ref().map(|key| key.id),
        };
        services.intake.submit(request).await.map_err(refused)
    }
}

/// The request's `Idempotency-Key`, tied to the call.
pub fn idempotency_key(req: &Request, call: &Call) -> Result<Option<IdempotencyKey>> {
    let key = key_of(req)?;
    Ok(key.map(|key| IdempotencyKey {
        key,
        fingerprint: call.fingerprint(),
    }))
}

/// The request's `Idempotency-Key`, with or without quotes.
pub fn key_of(req: &Request) -> Result<Option<String>> {
    let Some(header) = req.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let text = header.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > KEY_MAX_CHARS || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(Problem::field(
            &["header", "idempotency-key"],
            format!("must be 1 to {KEY_MAX_CHARS} printable ASCII characters; a UUID is a good choice"),
            "idempotency_key",
        ));
    }
    Ok(Some(key.to_owned()))
}

/// What a client sees of a refusal.
pub fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::UnknownModel(available) => {
            let rule = match available.is_empty() {
                true => "no model is available at present".to_owned(),
                false => format!("must be one of: {}", available.join(", ")),
            };
            Problem::new(Code::UnknownModel, format!("model_id: {rule}")).with_errors(vec![FieldError::new(
                &["body", "model_id"],
                rule,
                "enum",
            )])
        }
        Refusal::ModelUnavailable(reason) => Problem::new(Code::ModelUnavailable, format!("model_id: {reason}"))
            .with_errors(vec![FieldError::new(&["body", "model_id"], reason, "unavailable")]),
        Refusal::Draining(what) => Problem::new(
            Code::Draining,
            format!("The operator lets {what} take nothing new at present; what was accepted goes on. Try again later"),
        )
        .retry_after(DRAINING_RETRY_SECONDS),
        Refusal::Invalid(faults) => Problem::call("body", faults),
        Refusal::KeyReused => Problem::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another request; send a new key for a new request",
        ),
        Refusal::Insufficient { required, available } => {
            let (required, available) = (required.0, available.0);
            let mut detail = format!("Insufficient credits. Required: {required}, Available: {available}");
            if available < 0 {
                detail.push_str(&format!(
                    ". A purchase was refunded or disputed after its credits were spent: the account owes {} credits, which \
                     the next credits pay first",
                    available.unsigned_abs()
                ));
            }
            Problem::new(Code::InsufficientCredits, detail)
        }
        Refusal::CapReached { required, remaining } => Problem::new(
            Code::KeyCapReached,
            format!(
                "This costs {required} credits, and this API key may spend {remaining} more; raise its spending_cap or use \
                 another key"
            ),
        ),
        Refusal::KeyEnded => Problem::new(Code::Unauthorized, "The API key was revoked or has expired"),
        Refusal::Suspended => Problem::new(
            Code::AccountSuspended,
            "This account is suspended and cannot spend credits; contact the operator",
        ),
        Refusal::NoSuchProject => Problem::not_found("Project"),
        Refusal::NoSuchUser => Problem::new(Code::Unauthorized, "The account of this token does not exist any more"),
        Refusal::Store(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn body(value: Value) -> CallBody {
        serde_json::from_value(value).unwrap()
    }

    fn call(value: Value) -> Call {
        body(value).clean().unwrap()
    }

    #[test]
    fn the_fingerprint_is_of_what_is_asked_and_not_of_how_it_is_written() {
        let a = call(json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1, "b": 2}}));
        let b = call(
            serde_json::from_str(
                r#"{"parameters":{"b":2,"a":1},"prompt":"p","model_id":"m","negative_prompt":null,"x":1}"#,
            )
            .unwrap(),
        );
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.fingerprint().len(), 64);
        for other in [
            json!({"model_id": "m2", "prompt": "p", "parameters": {"a": 1, "b": 2}}),
            json!({"model_id": "m", "prompt": "P", "parameters": {"a": 1, "b": 2}}),
            json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1, "b": 3}}),
            json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1}}),
            json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1, "b": 2}, "negative_prompt": "n"}),
            json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1, "b": 2}, "reference_image_url": "https://x/y.png"}),
            json!({"model_id": "m", "prompt": "p", "parameters": {"a": 1, "b": 2}, "project_id": "0190a3e4-0000-7000-8000-000000000000"}),
        ] {
            assert_ne!(a.fingerprint(), call(other.clone()).fingerprint(), "{other}");
        }
    }

    #[test]
    fn an_upload_counts_by_its_content() {
        let plain = call(json!({"model_id": "m", "prompt": "p"}));
        let upload = |url: &str, sha: &str| Call {
            reference_image_url: Some(url.into()),
            upload_sha256: Some(sha.into()),
            ..plain.clone()
        };
        assert_eq!(
            upload("https://a/1", "aa").fingerprint(),
            upload("https://a/2", "aa").fingerprint()
        );
        assert_ne!(
            upload("https://a/1", "aa").fingerprint(),
            upload("https://a/1", "bb").fingerprint()
        );
    }

    #[test]
    fn form_line_ends_are_newlines_and_control_characters_are_refused() {
        assert_eq!(call(json!({"model_id": "m", "prompt": "a\r\nb\tc"})).prompt, "a\nb\tc");
        for prompt in ["a\u{0}b", "a\rb", "\u{1b}[31m", "\u{85}"] {
            let problem = body(json!({"model_id": "m", "prompt": prompt})).clean().unwrap_err();
            assert_eq!(problem.code(), Code::Invalid, "{prompt:?}");
        }
    }

    #[test]
    fn empty_optional_members_are_none() {
        let call = call(
            json!({"model_id": "m", "prompt": "p", "negative_prompt": " ", "reference_image_url": "", "project_id": ""}),
        );
        assert_eq!(
            (call.negative_prompt, call.reference_image_url, call.project_id),
            (None, None, None)
        );
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let problem =
            body(json!({"model_id": "m", "prompt": "\u{0}", "project_id": "x", "parameters": {"a".repeat(101): 1}}))
                .clean()
                .unwrap_err();
        let text = format!("{problem:?}");
        for name in ["prompt", "project_id", "parameters"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn keys_come_with_or_without_quotes_and_within_bounds() {
        let call = call(json!({"model_id": "m", "prompt": "p"}));
        let key = |value: &str| {
            let mut req = Request::new();
            req.headers_mut().insert("idempotency-key", value.parse().unwrap());
            idempotency_key(&req, &call)
        };
        assert_eq!(key("abc").unwrap().unwrap().key, "abc");
        assert_eq!(key("\"abc\"").unwrap().unwrap().key, "abc");
        assert_eq!(key(&"k".repeat(255)).unwrap().unwrap().key.len(), 255);
        for bad in ["", "\"\"", &"k".repeat(256), "é"] {
            assert_eq!(key(bad).unwrap_err().code(), Code::Invalid, "{bad:?}");
        }
        assert_eq!(idempotency_key(&Request::new(), &call).unwrap(), None);
    }
}
