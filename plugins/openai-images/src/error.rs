//! The API's errors in our classes, with messages of our own that tell the user what to do.

use velro_plugin::{ErrorKind, Failure, Response, Retry, Value};

/// One class of error: its codes and types, and what they mean to us.
struct Class {
    codes: &'static [&'static str],
    kind: ErrorKind,
    retry: Retry,
    message: &'static str,
}

const POLICY: &str = "The provider's safety system refused the prompt, the reference image or the result. Change the wording \
                      (no real people, violence, sexual content or trademarks) and try again.";
const ACCOUNT: &str = "This model cannot be used at present: the operator's account with the provider needs attention. Choose \
                       another model or try later.";
const BUSY: &str = "The provider takes no more jobs at this moment. Try again in a minute.";
const UNKNOWN_MODEL: &str = "The provider does not offer this model any more. Choose another model.";
const IMAGE: &str = "The provider cannot use the reference image. Use a PNG, JPEG or WebP file that is not too large.";
const INPUT: &str = "The provider refused the input. Check the parameters against the model's description.";

const CLASSES: &[Class] = &[
    Class {
        codes: &[
            "content_policy_violation",
            "moderation_blocked",
            "content_filter",
            "safety_violation",
        ],
        kind: ErrorKind::ContentPolicy,
        retry: Retry::OtherProvider,
        message: POLICY,
    },
    Class {
        codes: &[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "quota_exceeded",
        ],
        kind: ErrorKind::Quota,
        retry: Retry::OtherProvider,
        message: ACCOUNT,
    },
    Class {
        codes: &[
            "invalid_api_key",
            "account_deactivated",
            "permission_denied",
            "authentication_error",
        ],
        kind: ErrorKind::Auth,
        retry: Retry::OtherProvider,
        message: ACCOUNT,
    },
    Class {
        codes: &["model_not_found", "deployment_not_found"],
        kind: ErrorKind::NotFound,
        retry: Retry::OtherProvider,
        message: UNKNOWN_MODEL,
    },
    Class {
        codes: &["rate_limit_exceeded", "rate_limit_error", "requests", "tokens"],
        kind: ErrorKind::RateLimited,
        retry: Retry::SameProvider,
        message: BUSY,
    },
    Class {
        codes: &[
            "invalid_image_file",
            "invalid_image_url",
            "image_too_large",
            "invalid_image",
            "unsupported_file_type",
        ],
        kind: ErrorKind::InvalidInput,
        retry: Retry::Never,
        message: IMAGE,
    },
];

/// True when an answer says that nothing was made: a 4xx, except the ones that a wait for the result may end with (408,
/// 499), and a 503 that says so on purpose (with the API's error object, or with a time to come back at). Everything
/// else may have been charged for.
pub(crate) fn is_refusal(answer: &Response<'_>) -> bool {
    match answer.status {
        408 | 499 => false,
        400..=499 => true,
        503 => answer.json().is_ok_and(|body| body["error"].is_object()) || retry_after_ms(answer) > 0,
        _ => false,
    }
}

/// Why the API made nothing.
pub(crate) fn refused(answer: &Response<'_>) -> Failure {
    let body = answer.json().unwrap_or_default();
    let error = &body["error"];
    let mut failure = answer.failure(by_status(answer.status));
    failure.retry_after_ms = retry_after_ms(answer);
    if answer.status == 503 {
        failure.kind = ErrorKind::Unavailable;
    }
    let says = error["message"].as_str().unwrap_or_default().to_lowercase();
    let (code, kind) = (code_of(&error["code"]), code_of(&error["type"]));
    let class = [code, kind]
        .into_iter()
        .flatten()
        .find_map(|code| CLASSES.iter().find(|class| class.codes.contains(&code)));
    if let Some(code) = code.or(kind) {
        failure.code = code.to_owned();
    }
    if let Some(class) = class {
        (failure.kind, failure.retry, failure.message) = (class.kind, class.retry, class.message.into());
    } else if says.contains("safety system") || says.contains("content policy") {
        // Compatible servers keep OpenAI's words and lose its codes.
        (failure.kind, failure.retry, failure.message) =
            (ErrorKind::ContentPolicy, Retry::OtherProvider, POLICY.into());
        failure.code = "content_policy_violation".into();
    } else if failure.kind == ErrorKind::InvalidInput
        && let Some(field) = code_of(&error["param"])
    {
        failure.message =
            format!("The model does not accept `{field}` as given. Check it against the model's description.");
    }
    failure
}

/// `retry-after-ms` is the finer of the two.
fn retry_after_ms(answer: &Response<'_>) -> u64 {
    let fine = answer.header("retry-after-ms").and_then(|ms| ms.trim().parse().ok());
    fine.unwrap_or_else(|| answer.failure("").retry_after_ms)
}

/// The text of a JSON value that is a short machine code, else nothing.
fn code_of(value: &Value) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    value
        .as_str()
        .filter(|s| (1..=64).contains(&s.len()) && s.bytes().all(plain))
}

fn by_status(status: u16) -> &'static str {
    match status {
        401..=403 => ACCOUNT,
        404 | 410 => UNKNOWN_MODEL,
        413 | 415 => IMAGE,
        429 => BUSY,
        503 => "The provider has no capacity at present. Try again in a few minutes.",
        _ => INPUT,
    }
}

/// A failure without an answer.
pub(crate) fn failure(kind: ErrorKind, retry: Retry, code: &str, message: &str) -> Failure {
    Failure {
        kind,
        retry,
        code: code.into(),
        message: message.into(),
        retry_after_ms: 0,
    }
}

/// The reference image is there, and not an image.
pub(crate) fn unreadable_image() -> Failure {
    failure(ErrorKind::InvalidInput, Retry::Never, "invalid_image_file", IMAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use velro_plugin::Header;

    #[test]
    fn every_refusal_has_its_class() {
        use ErrorKind::*;
        for (status, code, kind) in [
            (400, "content_policy_violation", ContentPolicy),
            (400, "moderation_blocked", ContentPolicy),
            (429, "insufficient_quota", Quota),
            (400, "billing_hard_limit_reached", Quota),
            (401, "invalid_api_key", Auth),
            (403, "unsupported_country_region_territory", Auth),
            (404, "model_not_found", NotFound),
            (429, "rate_limit_exceeded", RateLimited),
            (400, "invalid_image_file", InvalidInput),
            (400, "unknown_parameter", InvalidInput),
            (402, "", Quota),
            (404, "", NotFound),
            (409, "", Upstream),
            (413, "", InvalidInput),
            (422, "", InvalidInput),
            (429, "", RateLimited),
            (503, "server_is_overloaded", Unavailable),
        ] {
            let body = format!(r#"{{"error":{{"message":"x","type":null,"param":null,"code":"{code}"}}}}"#);
            let answer = Response {
                status,
                headers: &[],
                body: body.as_bytes(),
            };
            assert!(is_refusal(&answer), "{status}");
            assert_eq!(refused(&answer).kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn words_without_a_code() {
        let body = br#"{"error":{"message":"Your request was rejected by our safety system."}}"#;
        let answer = Response {
            status: 400,
            headers: &[],
            body,
        };
        assert_eq!(refused(&answer).kind, ErrorKind::ContentPolicy);
    }

    #[test]
    fn when_to_come_back() {
        let headers = [
            Header {
                name: "retry-after",
                value: "2",
            },
            Header {
                name: "retry-after-ms",
                value: "1234",
            },
        ];
        let answer = |headers| Response {
            status: 429,
            headers,
            body: b"",
        };
        assert_eq!(refused(&answer(&headers)).retry_after_ms, 1_234);
        assert_eq!(refused(&answer(&headers[..1])).retry_after_ms, 2_000);
        assert_eq!(refused(&answer(&[])).retry_after_ms, 0);
    }

    #[test]
    fn what_may_have_been_charged_is_no_refusal() {
        for (status, body) in [
            (408, "{}"),
            (499, ""),
            (500, r#"{"error":{}}"#),
            (502, ""),
            (503, "reset"),
            (504, ""),
            (524, ""),
            (302, ""),
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
