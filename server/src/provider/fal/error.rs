//! FAL's errors in our classes, with messages of our own that name field, rule and fix.
//!
//! FAL's `msg` texts are not passed on: they are written for FAL's customer, which is the operator.

use velro_plugin::{ErrorKind, Failure, Response, Retry, Value};

use super::code_of;

/// One class of error: its codes, and what they mean to us.
struct Class {
    codes: &'static [&'static str],
    kind: ErrorKind,
    retry: Retry,
    message: &'static str,
}

const CLASSES: &[Class] = &[
    Class {
        codes: &["content_policy_violation"],
        kind: ErrorKind::ContentPolicy,
        retry: Retry::OtherProvider,
        message: "The provider's safety system refused the prompt, the reference image or the result. Change the wording \
                  (no real people, violence, sexual content or trademarks) and try again.",
    },
    Class {
        codes: &["no_media_generated"],
        kind: ErrorKind::Upstream,
        retry: Retry::Never,
        message: "The model produced nothing for this input. Describe in more detail what you want to see and try again.",
    },
    Class {
        codes: &[
            "downstream_service_error",
            "internal_server_error",
            "internal_error",
            "runner_server_error",
        ],
        kind: ErrorKind::Upstream,
        retry: Retry::SameProvider,
        message: "The model failed at the provider. Try again; if it keeps failing, choose another model.",
    },
    Class {
        codes: &[
            "downstream_service_unavailable",
            "runner_scheduling_failure",
            "runner_connection_timeout",
            "runner_disconnected",
            "runner_connection_refused",
            "runner_connection_error",
            "runner_incomplete_response",
        ],
        kind: ErrorKind::Unavailable,
        retry: Retry::SameProvider,
        message: "The provider has no capacity for this model at present. Try again in a few minutes.",
    },
    Class {
        codes: &["generation_timeout", "request_timeout", "startup_timeout"],
        kind: ErrorKind::Timeout,
        retry: Retry::SameProvider,
        message: "The provider did not finish in time. Try again, or choose a faster model.",
    },
    Class {
        codes: &["client_cancelled", "client_disconnected"],
        kind: ErrorKind::Cancelled,
        retry: Retry::Never,
        message: "Cancelled.",
    },
    Class {
        codes: &["concurrent_requests_limit"],
        kind: ErrorKind::RateLimited,
        retry: Retry::SameProvider,
        message: "The provider takes no more jobs at this moment. Try again in a minute.",
    },
];

/// The class of an error answer of submit or result.
pub(super) fn classify(answer: &Response<'_>) -> Failure {
    let body = answer.json().unwrap_or_default();
    let detail = &body["detail"];
    let first = &detail[0];
    let code = code_of(&first["type"])
        .or_else(|| code_of(&body["error_type"]))
        .or_else(|| {
            answer
                .header("x-fal-error-type")
                .filter(|h| h.len() <= 64 && code_text(h))
        });

    let mut failure = answer.failure(by_status(answer.status));
    if let Some(code) = code {
        failure.code = code.to_owned();
        if let Some(class) = CLASSES.iter().find(|c| c.codes.contains(&code)) {
            (failure.kind, failure.retry, failure.message) = (class.kind, class.retry, class.message.into());
        }
    }
    if failure.kind == ErrorKind::InvalidInput {
        failure.retry = Retry::Never;
        if first.is_object() {
            failure.message = input_message(first);
        }
    }
    // FAL locks an account without money with a 403.
    let locked = |text: &str| text.contains("locked") || text.contains("balance");
    if answer.status == 403 && detail.as_str().is_some_and(|d| locked(&d.to_ascii_lowercase())) {
        failure.kind = ErrorKind::Quota;
        failure.code = "account_locked".into();
    }
    if answer.status == 499 {
        failure.kind = ErrorKind::Cancelled;
    }
    if failure.retry == Retry::SameProvider && answer.header("x-fal-retryable") == Some("false") {
        failure.retry = Retry::Never;
    }
    failure
}

/// A failure known by its code alone, when the details cannot be had.
pub(super) fn of_verdict(code: &str) -> Failure {
    let class = CLASSES.iter().find(|c| c.codes.contains(&code));
    Failure {
        kind: class.map_or(ErrorKind::Upstream, |c| c.kind),
        retry: class.map_or(Retry::Never, |c| c.retry),
        code: code.to_owned(),
        message: class.map_or(by_status(500), |c| c.message).to_owned(),
        retry_after_ms: 0,
    }
}

fn code_text(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn by_status(status: u16) -> &'static str {
    match status {
        401..=403 => {
            "This model cannot be used at present: the operator's account with the provider needs attention. Choose \
             another model or try later."
        }
        404 | 410 => "The provider does not offer this model any more. Choose another model.",
        408 | 504 => "The provider did not finish in time. Try again, or choose a faster model.",
        413 => {
            "The provider refused the input because it is too large. Use a smaller reference image or a shorter prompt."
        }
        429 => "The provider takes no more jobs at this moment. Try again in a minute.",
        499 => "Cancelled.",
        502 | 503 => "The provider has no capacity for this model at present. Try again in a few minutes.",
        500..=599 => "The model failed at the provider. Try again; if it keeps failing, choose another model.",
        _ => "The provider refused the input. Check the parameters against the model's description.",
    }
}

/// Field, rule and fix of a validation error, from its machine-readable parts only.
fn input_message(item: &Value) -> String {
    let field = field_of(&item["loc"]);
    let field = field.as_deref().unwrap_or("the input");
    let ctx = &item["ctx"];
    let number = |name: &str| ctx[name].as_number().map(ToString::to_string);
    let with = |name: &str, rule: &str, otherwise: &str| match number(name) {
        Some(n) => format!("`{field}` {}.", rule.replace("{}", &n)),
        None => format!("`{field}` {otherwise}."),
    };
    match item["type"].as_str().unwrap_or_default() {
        "missing" | "value_error.missing" => format!("The model needs `{field}`: add it."),
        "greater_than" => with("gt", "must be greater than {}", "is too small"),
        "greater_than_equal" => with("ge", "must be at least {}", "is too small"),
        "less_than" => with("lt", "must be less than {}", "is too large"),
        "less_than_equal" => with("le", "must be at most {}", "is too large"),
        "multiple_of" => with(
            "multiple_of",
            "must be a multiple of {}",
            "has a value between the allowed steps",
        ),
        "sequence_too_short" | "string_too_short" => with("min_length", "needs at least {} elements", "is too short"),
        "sequence_too_long" | "string_too_long" => with("max_length", "may have at most {} elements", "is too long"),
        "one_of" => match choices(&ctx["expected"]) {
            Some(list) => format!("`{field}` must be one of {list}."),
            None => format!("`{field}` is not one of the allowed values."),
        },
        "image_too_small" => sized(field, ctx, "min", "is too small", "at least"),
        "image_too_large" => sized(field, ctx, "max", "is too large", "at most"),
        "file_too_large" => with(
            "max_size",
            "is too large: at most {} bytes",
            "is too large: use a smaller file",
        ),
        "image_load_error" => format!("The image in `{field}` cannot be read: use a PNG, JPEG or WebP file."),
        "file_download_error" => {
            format!("The provider could not download `{field}`: the URL must be public and answer without a login.")
        }
        "face_detection_error" => format!("No face was found in `{field}`: use an image that shows one clearly."),
        "feature_not_supported" => format!("The model does not support this use of `{field}`: leave it out."),
        "unsupported_image_format" => format!("The format of `{field}` is not supported: use PNG, JPEG or WebP."),
        "unsupported_video_format" => format!("The format of `{field}` is not supported: use MP4."),
        "unsupported_audio_format" => format!("The format of `{field}` is not supported: use MP3 or WAV."),
        "video_duration_too_long" | "audio_duration_too_long" => format!("`{field}` is too long: shorten it."),
        "video_duration_too_short" | "audio_duration_too_short" => format!("`{field}` is too short: use a longer one."),
        _ => format!("The model does not accept `{field}` as given. Check it against the model's description."),
    }
}

fn sized(field: &str, ctx: &Value, side: &str, is: &str, bound: &str) -> String {
    let pixels = |name: &str| ctx[format!("{side}_{name}")].as_u64();
    match (pixels("width"), pixels("height")) {
        (Some(w), Some(h)) => format!("The image in `{field}` {is}: {bound} {w}x{h} pixels."),
        _ => format!("The image in `{field}` {is}."),
    }
}

/// The innermost name of a location, `image_url` of `["body", "image_url"]`.
fn field_of(loc: &Value) -> Option<String> {
    let name = loc.as_array()?.iter().rev().find_map(Value::as_str)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (name != "body" && name.len() <= 64 && name.bytes().all(plain)).then(|| name.to_owned())
}

fn choices(expected: &Value) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _-:./".contains(c);
    let texts: Vec<String> = expected
        .as_array()?
        .iter()
        .take(20)
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        .collect();
    let fine = !texts.is_empty() && texts.iter().all(|t| t.len() <= 40 && t.chars().all(plain));
    fine.then(|| texts.join(", "))
}
