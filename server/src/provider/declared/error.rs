//! The API's errors in our classes, by the declaration first and the HTTP status second.

use velro_plugin::{ErrorKind, Failure, Retry, Value};

use super::response::{View, word};
use crate::catalog::declaration::{Declaration, ErrorClass, Meaning, On, Place, Test};
use crate::provider::reading;

/// A failure, and the class that made it.
pub(super) struct Classed<'d> {
    pub(super) failure: Failure,
    pub(super) class: Option<&'d ErrorClass>,
}

impl Classed<'_> {
    /// True when a class fits by what the answer says, not by its HTTP status alone.
    pub(super) fn by_answer(&self) -> bool {
        self.class.is_some_and(ErrorClass::reads_the_answer)
    }

    pub(super) fn means(&self, meaning: Meaning) -> bool {
        self.class.is_some_and(|class| class.meaning == meaning)
    }
}

/// What an answer to a request means as an error.
pub(super) fn classify<'d>(declaration: &'d Declaration, on: On, view: &View<'_>) -> Classed<'d> {
    let shape = &declaration.job;
    let codes: Vec<String> = shape.code.iter().filter_map(|at| word(view.at(at)?)).collect();
    let class = declaration.errors.iter().find(|class| fits(class, on, view, &codes));
    let mut failure = if view.answer.ok() {
        // The API itself calls the job failed.
        Failure {
            kind: ErrorKind::Upstream,
            retry: Retry::Never,
            code: "failed".into(),
            message: String::new(),
            retry_after_ms: 0,
        }
    } else {
        view.answer.failure("")
    };
    if let Some(code) = codes.into_iter().find(|code| is_code(code)) {
        failure.code = code;
    }
    if let Some(ErrorClass {
        meaning: Meaning::Kind(kind),
        retry,
        ..
    }) = class
    {
        (failure.kind, failure.retry) = (*kind, *retry);
    }
    let own = class.and_then(|class| class.message.clone());
    // What the API says about our account is not for our users.
    let theirs = || match failure.kind {
        ErrorKind::Auth | ErrorKind::Quota => None,
        _ => shape.error.iter().find_map(|at| {
            let text = reading::clean(view.at(at)?.as_str()?);
            (!text.is_empty()).then_some(text)
        }),
    };
    failure.message = own.or_else(theirs).unwrap_or_else(|| usual(failure.kind).to_owned());
    Classed { failure, class }
}

/// The failure that an answer about a finished job names beside its state, if it names one.
pub(super) fn verdict(declaration: &Declaration, view: &View<'_>) -> Option<Failure> {
    let shape = &declaration.job;
    let named = shape
        .code
        .iter()
        .chain(&shape.error)
        .any(|at| view.at(at).is_some_and(is_something));
    named.then(|| classify(declaration, On::Status, view).failure)
}

fn fits(class: &ErrorClass, on: On, view: &View<'_>, codes: &[String]) -> bool {
    let status = view.answer.status;
    class.on.is_none_or(|wanted| wanted == on)
        && (class.status.is_empty() || class.status.iter().any(|(from, to)| (*from..=*to).contains(&status)))
        && (class.code.is_empty() || class.code.iter().any(|code| codes.contains(code)))
        && class.probe.as_ref().is_none_or(|probe| match &probe.test {
            Test::Present => match &probe.place {
                Place::Body(at) => view.at(at).is_some_and(is_something),
                header => view.word(header).is_some_and(|text| !text.is_empty()),
            },
            Test::Is(values) => view.word(&probe.place).is_some_and(|word| values.contains(&word)),
            Test::Contains(parts) => view.word(&probe.place).is_some_and(|word| {
                let word = word.to_lowercase();
                parts.iter().any(|part| word.contains(part))
            }),
        })
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Short and plain enough to be passed on as the API's own code.
fn is_code(code: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    (1..=64).contains(&code.len()) && code.bytes().all(plain)
}

/// What users read when neither the declaration nor the API has better words.
pub(super) fn usual(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => {
            "The provider refused the input. Check the parameters against the model's description."
        }
        ErrorKind::Auth | ErrorKind::Quota => {
            "This model cannot be used at present: the operator's account with the provider needs attention. Choose \
             another model or try later."
        }
        ErrorKind::RateLimited => "The provider takes no more jobs at this moment. Try again in a minute.",
        ErrorKind::ContentPolicy => {
            "The provider's safety system refused the prompt, the reference image or the result. Change the wording \
             and try again."
        }
        ErrorKind::NotFound => "The provider does not offer this model any more. Choose another model.",
        ErrorKind::Unavailable => "The provider has no capacity for this model at present. Try again in a few minutes.",
        ErrorKind::Timeout => "The provider did not finish in time. Try again, or choose a faster model.",
        ErrorKind::Cancelled => "Cancelled.",
        ErrorKind::BadResponse => "The provider's answer could not be understood.",
        ErrorKind::UnknownOutcome => {
            "The connection to the provider broke while the job was handed over. We are finding out whether it was \
             accepted; nothing is charged until then."
        }
        ErrorKind::Upstream => {
            "The model failed at the provider. Try again; if it keeps failing, choose another model."
        }
    }
}
