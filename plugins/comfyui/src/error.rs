//! ComfyUI's errors in our classes, with messages of our own that tell the user what to do.
//!
//! ComfyUI's texts are not passed on: they name nodes, files and paths of the operator's machine.

use velro_plugin::{ErrorKind, Failure, Response, Retry, Value};

/// One class of failed workflow: what the exception has in it (in lower case), and what it means to us.
struct Class {
    marks: &'static [&'static str],
    kind: ErrorKind,
    retry: Retry,
    code: &'static str,
    message: &'static str,
}

const IMAGE: &str = "The reference image cannot be read. Use a PNG, JPEG or WebP file.";
const BROKEN: &str = "This model does not work at present: its workflow does not fit the server. Choose another model.";

const EXCEPTIONS: &[Class] = &[
    Class {
        marks: &["outofmemory", "out of memory", "allocation on device"],
        kind: ErrorKind::Upstream,
        retry: Retry::SameProvider,
        code: "out_of_memory",
        message: "The server ran out of memory. Ask for a smaller or shorter result.",
    },
    Class {
        marks: &["unidentifiedimage", "cannot identify image"],
        kind: ErrorKind::InvalidInput,
        retry: Retry::Never,
        code: "invalid_image",
        message: IMAGE,
    },
    Class {
        marks: &["filenotfound", "no such file"],
        kind: ErrorKind::NotFound,
        retry: Retry::OtherProvider,
        code: "file_missing",
        message: BROKEN,
    },
];

/// Why a workflow failed while it ran.
pub(crate) fn of_exception(exception: &str, message: &str) -> Failure {
    let text: String = exception
        .chars()
        .chain(" ".chars())
        .chain(message.chars())
        .take(4_096)
        .collect();
    let text = text.to_lowercase();
    let class = EXCEPTIONS
        .iter()
        .find(|class| class.marks.iter().any(|mark| text.contains(mark)));
    match class {
        Some(class) => failure(class.kind, class.retry, class.code, class.message),
        None => failure(
            ErrorKind::Upstream,
            Retry::SameProvider,
            "workflow_failed",
            "The workflow failed on the server. Try again; if it keeps failing, choose another model.",
        ),
    }
}

/// True when an answer to the submit says that nothing was queued. What is left may have been, and is looked for.
pub(crate) fn is_refusal(answer: &Response<'_>) -> bool {
    (400..500).contains(&answer.status) && !matches!(answer.status, 408 | 499)
}

/// Why ComfyUI, or what stands in front of it, did not take the workflow.
pub(crate) fn refused(answer: &Response<'_>) -> Failure {
    let body = answer.json().unwrap_or_default();
    let mut failure = answer.failure(match answer.status {
        401 | 403 => {
            "This model cannot be used at present: the server needs the operator's attention. Choose another model."
        }
        429 => "The server takes no more jobs at this moment. Try again in a minute.",
        413 => "The input is too large. Use a smaller reference image or a shorter prompt.",
        _ => BROKEN,
    });
    let code = code_of(&body["error"]["type"]);
    if let Some(code) = code {
        failure.code = code.to_owned();
    }
    if answer.status != 400 {
        return failure;
    }
    match (code, field_of(&body["node_errors"])) {
        // Something in the input does not pass the node's own rules.
        (_, Some((field, rule))) => {
            failure.message =
                format!("The workflow does not accept `{field}` as given. Check it against the model's description.");
            failure.code = rule.to_owned();
        }
        // No node complains about a value: the workflow itself is at fault.
        _ => (failure.kind, failure.retry) = (ErrorKind::NotFound, Retry::OtherProvider),
    }
    failure
}

/// The input that a node complains about, and the kind of complaint.
fn field_of(nodes: &Value) -> Option<(&str, &str)> {
    let errors = nodes
        .as_object()?
        .values()
        .filter_map(|node| node["errors"].as_array())
        .flatten();
    errors
        .filter_map(|error| Some((code_of(&error["extra_info"]["input_name"])?, code_of(&error["type"])?)))
        .find(|(_, rule)| {
            !matches!(
                *rule,
                "required_input_missing" | "bad_linked_input" | "return_type_mismatch"
            )
        })
}

/// The text of a JSON value that is a short machine code, else nothing.
fn code_of(value: &Value) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    value
        .as_str()
        .filter(|s| (1..=64).contains(&s.len()) && s.bytes().all(plain))
}

/// A failure that no answer decides.
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
    failure(ErrorKind::InvalidInput, Retry::Never, "invalid_image", IMAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_has_its_class() {
        for (exception, message, code) in [
            ("torch.OutOfMemoryError", "", "out_of_memory"),
            ("RuntimeError", "CUDA error: out of memory", "out_of_memory"),
            (
                "PIL.UnidentifiedImageError",
                "cannot identify image file",
                "invalid_image",
            ),
            (
                "FileNotFoundError",
                "[Errno 2] No such file or directory: '/models/x'",
                "file_missing",
            ),
            ("KeyError", "'samples'", "workflow_failed"),
            ("", "", "workflow_failed"),
        ] {
            assert_eq!(of_exception(exception, message).code, code, "{exception} {message}");
        }
    }

    #[test]
    fn every_refusal_has_its_class() {
        let rule = |rule: &str| {
            format!(
                r#"{{"error":{{"type":"prompt_outputs_failed_validation"}},"node_errors":{{"5":{{"class_type":"EmptyLatentImage",
                    "errors":[{{"type":"{rule}","extra_info":{{"input_name":"width"}}}}]}}}}}}"#
            )
        };
        let error = |code: &str| format!(r#"{{"error":{{"type":"{code}"}},"node_errors":{{}}}}"#);
        for (status, body, kind, code) in [
            (
                400,
                rule("value_bigger_than_max"),
                ErrorKind::InvalidInput,
                "value_bigger_than_max",
            ),
            (
                400,
                rule("value_not_in_list"),
                ErrorKind::InvalidInput,
                "value_not_in_list",
            ),
            (
                400,
                rule("required_input_missing"),
                ErrorKind::NotFound,
                "prompt_outputs_failed_validation",
            ),
            (
                400,
                error("prompt_no_outputs"),
                ErrorKind::NotFound,
                "prompt_no_outputs",
            ),
            (
                400,
                error("missing_node_type"),
                ErrorKind::NotFound,
                "missing_node_type",
            ),
            (401, String::new(), ErrorKind::Auth, "http_401"),
            (404, String::new(), ErrorKind::NotFound, "http_404"),
            (413, String::new(), ErrorKind::InvalidInput, "http_413"),
            (429, String::new(), ErrorKind::RateLimited, "http_429"),
        ] {
            let answer = Response {
                status,
                headers: &[],
                body: body.as_bytes(),
            };
            assert!(is_refusal(&answer));
            let failure = refused(&answer);
            assert_eq!((failure.kind, failure.code.as_str()), (kind, code), "{status} {body}");
        }
    }

    #[test]
    fn what_may_have_been_queued_is_no_refusal() {
        for status in [200, 302, 408, 499, 500, 502, 503, 504] {
            assert!(
                !is_refusal(&Response {
                    status,
                    headers: &[],
                    body: b""
                }),
                "{status}"
            );
        }
    }
}
