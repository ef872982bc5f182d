//! Replicate's errors in our classes, with messages of our own that tell the user what to do.
//!
//! Replicate's texts are not passed on: they are written for Replicate's customer, which is the operator.

use velro_plugin::{ErrorKind, Failure, Response, Retry, Value};

/// One class of error: what its texts have in them (in lower case), and what it means to us.
struct Class {
    marks: &'static [&'static str],
    kind: ErrorKind,
    retry: Retry,
    code: &'static str,
    message: &'static str,
}

/// Verdicts of failed predictions. The first class with a mark in the text is it.
const VERDICTS: &[Class] = &[
    Class {
        marks: &[
            "nsfw",
            "e005",
            "flagged as sensitive",
            "safety checker",
            "safety filter",
            "safety system",
            "content policy",
            "content moderation",
            "moderation",
        ],
        kind: ErrorKind::ContentPolicy,
        retry: Retry::OtherProvider,
        code: "content_policy",
        message: "The model's safety system refused the prompt, the reference image or the result. Change the wording \
                  (no real people, violence, sexual content or trademarks) and try again.",
    },
    Class {
        marks: &["out of memory", "e1001"],
        kind: ErrorKind::Upstream,
        retry: Retry::Never,
        code: "out_of_memory",
        message: "The model ran out of memory. Ask for a smaller or shorter result, or use a smaller reference image.",
    },
    Class {
        marks: &["e006", "invalid input", "validation error"],
        kind: ErrorKind::InvalidInput,
        retry: Retry::Never,
        code: "invalid_input",
        message: "The model refused the input. Check the parameters against the model's description.",
    },
    Class {
        marks: &["timed out", "timeout", "e6716"],
        kind: ErrorKind::Timeout,
        retry: Retry::SameProvider,
        code: "timeout",
        message: "The provider did not finish in time. Try again, or choose a faster model.",
    },
    Class {
        marks: &[
            "temporarily unavailable",
            "e004",
            "e8765",
            "e9243",
            "interrupted",
            "please retry",
        ],
        kind: ErrorKind::Unavailable,
        retry: Retry::SameProvider,
        code: "interrupted",
        message: "The provider interrupted the job. Try again in a few minutes.",
    },
];

/// Why a prediction failed.
pub(crate) fn of_verdict(text: &str) -> Failure {
    let lower: String = text.chars().take(4_096).collect::<String>().to_lowercase();
    let class = VERDICTS
        .iter()
        .find(|class| class.marks.iter().any(|mark| lower.contains(mark)));
    match class {
        Some(class) => failure(class.kind, class.retry, class.code, class.message),
        None => failure(
            ErrorKind::Upstream,
            Retry::SameProvider,
            "model_failed",
            "The model failed at the provider. Try again; if it keeps failing, choose another model.",
        ),
    }
}

/// True when an answer to the paid request says that nothing was created: a 4xx, except 408 and 499, which proxies use for
/// waits that broke, and a 503 that Replicate itself wrote. A 503 of a proxy on the way may stand for a broken answer.
pub(crate) fn is_refusal(answer: &Response<'_>) -> bool {
    match answer.status {
        408 | 499 => false,
        400..=499 => true,
        503 => {
            let body = answer.json().unwrap_or_default();
            body["detail"].is_string() || body["title"].is_string()
        }
        _ => false,
    }
}

/// Why Replicate did not take the job.
pub(crate) fn refused(answer: &Response<'_>) -> Failure {
    let body = answer.json().unwrap_or_default();
    let mut failure = answer.failure(by_status(answer.status));
    let says = |field: &str, mark: &str| body[field].as_str().is_some_and(|t| t.to_lowercase().contains(mark));
    match answer.status {
        // The version was deleted, or belongs to somebody else.
        422 if says("title", "invalid version") || says("detail", "version does not exist") => {
            failure.kind = ErrorKind::NotFound;
            failure.retry = Retry::OtherProvider;
            failure.code = "no_such_version".into();
            failure.message = by_status(404).into();
        }
        422 => {
            failure.code = "invalid_input".into();
            if let Some(field) = field_of(&body) {
                failure.message =
                    format!("The model does not accept `{field}` as given. Check it against the model's description.");
            }
        }
        402 => failure.code = "insufficient_credit".into(),
        503 => failure.kind = ErrorKind::Unavailable,
        _ => {}
    }
    failure
}

/// The input that a validation error is about: `prompt` of `input.prompt`.
fn field_of(body: &Value) -> Option<&str> {
    let path = body["invalid_fields"][0]["field"].as_str()?;
    let name = path.rsplit('.').next()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    ((1..=64).contains(&name.len()) && name != "input" && name.bytes().all(plain)).then_some(name)
}

fn by_status(status: u16) -> &'static str {
    match status {
        401..=403 => {
            "This model cannot be used at present: the operator's account with the provider needs attention. Choose \
             another model or try later."
        }
        404 | 410 => "The provider does not offer this model any more. Choose another model.",
        413 => {
            "The provider refused the input because it is too large. Use a smaller reference image or a shorter prompt."
        }
        429 => "The provider takes no more jobs at this moment. Try again in a minute.",
        500..=599 => "The provider has no capacity at present. Try again in a few minutes.",
        _ => "The provider refused the input. Check the parameters against the model's description.",
    }
}

/// Failures that no text of Replicate's decides.
pub(crate) fn failure(kind: ErrorKind, retry: Retry, code: &str, message: &str) -> Failure {
    Failure {
        kind,
        retry,
        code: code.into(),
        message: message.into(),
        retry_after_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use velro_plugin::Header;

    #[test]
    fn every_verdict_has_its_class() {
        for (text, code) in [
            (
                "NSFW content detected. Try running it again, or try a different prompt.",
                "content_policy",
            ),
            (
                "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (abc)",
                "content_policy",
            ),
            ("CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory"),
            ("Prediction failed: E1001", "out_of_memory"),
            ("1 validation error for Input", "invalid_input"),
            ("Prediction timed out after 30 minutes", "timeout"),
            ("Prediction interrupted; please retry (code: PA)", "interrupted"),
            (
                "Service is temporarily unavailable. Please try again later. (E004)",
                "interrupted",
            ),
            ("Director: unexpected error handling prediction (E9243)", "interrupted"),
            ("list index out of range", "model_failed"),
            ("", "model_failed"),
        ] {
            assert_eq!(of_verdict(text).code, code, "{text}");
        }
    }

    #[test]
    fn every_refusal_has_its_class() {
        for (status, body, kind, retry) in [
            (400, "", ErrorKind::InvalidInput, Retry::Never),
            (
                401,
                r#"{"title":"Unauthenticated","status":401}"#,
                ErrorKind::Auth,
                Retry::OtherProvider,
            ),
            (
                402,
                r#"{"title":"Insufficient credit"}"#,
                ErrorKind::Quota,
                Retry::OtherProvider,
            ),
            (403, "", ErrorKind::Auth, Retry::OtherProvider),
            (
                404,
                r#"{"detail":"Not found."}"#,
                ErrorKind::NotFound,
                Retry::OtherProvider,
            ),
            (413, "", ErrorKind::InvalidInput, Retry::Never),
            (
                422,
                r#"{"title":"Input validation failed"}"#,
                ErrorKind::InvalidInput,
                Retry::Never,
            ),
            (
                422,
                r#"{"title":"Invalid version or not permitted","detail":"The specified version does not exist"}"#,
                ErrorKind::NotFound,
                Retry::OtherProvider,
            ),
            (
                429,
                r#"{"detail":"Request was throttled."}"#,
                ErrorKind::RateLimited,
                Retry::SameProvider,
            ),
            (
                503,
                r#"{"detail":"Try later"}"#,
                ErrorKind::Unavailable,
                Retry::SameProvider,
            ),
        ] {
            let headers = [Header {
                name: "retry-after",
                value: "7",
            }];
            let answer = Response {
                status,
                headers: &headers,
                body: body.as_bytes(),
            };
            assert!(is_refusal(&answer), "{status}");
            let failure = refused(&answer);
            assert_eq!((failure.kind, failure.retry), (kind, retry), "{status} {body}");
            assert_eq!(failure.retry_after_ms, 7_000);
        }
    }

    #[test]
    fn what_may_have_been_bought_is_no_refusal() {
        for (status, body) in [
            (408, ""),
            (499, ""),
            (500, "{}"),
            (502, ""),
            (503, "upstream connect error"),
            (504, ""),
            (302, ""),
            (200, "{}"),
        ] {
            let answer = Response {
                status,
                headers: &[],
                body: body.as_bytes(),
            };
            assert!(!is_refusal(&answer), "{status}");
        }
    }
}
