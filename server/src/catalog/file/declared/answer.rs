//! What stands where in the API's answers, and what it means.

use toml::de::DeValue;
use velro_plugin::{ErrorKind, Retry};

use super::{open, optional, parse_pointer, pointer, table, texts};
use crate::catalog::declaration::{
    Billed, ErrorClass, JobShape, Meaning, On, OutputForm, OutputRule, Place, Pointer, Probe, Stage, States, Test,
};
use crate::document::{Section, one_of};

/// `[providers.NAME.job]`.
#[derive(Default)]
pub(super) struct JobRead {
    pub(super) shape: JobShape,
    pub(super) id: Option<Pointer>,
}

const STAGES: [(&str, Stage); 5] = [
    ("queued", Stage::Queued),
    ("running", Stage::Running),
    ("done", Stage::Done),
    ("failed", Stage::Failed),
    ("cancelled", Stage::Cancelled),
];

/// The kinds of output; the last is the default.
const KINDS: [(&str, &str); 4] = [
    ("image", "image"),
    ("video", "video"),
    ("audio", "audio"),
    ("any", "any"),
];

const FORMS: [(&str, OutputForm); 3] = [
    ("url", OutputForm::Url),
    ("base64", OutputForm::Base64),
    ("body", OutputForm::Body),
];

const ONS: [(&str, On); 3] = [("submit", On::Submit), ("status", On::Status), ("result", On::Result)];

const MEANINGS: [(&str, Meaning); 13] = [
    ("invalid_input", Meaning::Kind(ErrorKind::InvalidInput)),
    ("auth", Meaning::Kind(ErrorKind::Auth)),
    ("quota", Meaning::Kind(ErrorKind::Quota)),
    ("rate_limited", Meaning::Kind(ErrorKind::RateLimited)),
    ("content_policy", Meaning::Kind(ErrorKind::ContentPolicy)),
    ("not_found", Meaning::Kind(ErrorKind::NotFound)),
    ("unavailable", Meaning::Kind(ErrorKind::Unavailable)),
    ("timeout", Meaning::Kind(ErrorKind::Timeout)),
    ("cancelled", Meaning::Kind(ErrorKind::Cancelled)),
    ("bad_response", Meaning::Kind(ErrorKind::BadResponse)),
    ("upstream", Meaning::Kind(ErrorKind::Upstream)),
    ("unknown_outcome", Meaning::Kind(ErrorKind::UnknownOutcome)),
    ("not_yet", Meaning::NotYet),
];

const RETRIES: [(&str, Retry); 3] = [
    ("never", Retry::Never),
    ("same_provider", Retry::SameProvider),
    ("other_provider", Retry::OtherProvider),
];

/// Reads the table, or what stands for a missing one; `None` when something in it is wrong (which has been noted).
pub(super) fn job(s: &mut Section<'_, '_>) -> Option<JobRead> {
    let empty = JobShape {
        progress_of: 100,
        ..JobShape::default()
    };
    let Some(mut s) = open(s, "job") else {
        return (!s.has("job")).then_some(JobRead { shape: empty, id: None });
    };
    let [id, state, progress, queue_position, log] =
        ["id", "state", "progress", "queue_position", "log"].map(|key| optional(&mut s, key, pointer));
    let progress_of = s.integer("progress_of", 1..=1_000_000);
    if let (Some(spot), Some(None)) = (&progress_of, &progress) {
        let what = "there is `progress_of` without `progress`";
        s.fault(spot.line, what, "add `progress`, the pointer to the number");
    }
    let progress_of = progress_of.map_or(Some(100), |spot| u64::try_from(spot.value).ok());
    let code = pointers(&mut s, "code");
    let error = pointers(&mut s, "error");
    let meta = meta(&mut s);
    let billed = open(&mut s, "billed").map(billed);
    s.finish();
    Some(JobRead {
        id: id?,
        shape: JobShape {
            state: state?,
            progress: progress?,
            progress_of: progress_of?,
            queue_position: queue_position?,
            log: log?,
            code: code?,
            error: error?,
            meta: meta?,
            billed: match billed {
                Some(billed) => Some(billed?),
                None => None,
            },
        },
    })
}

/// One pointer or several; none when the key is not there.
fn pointers(s: &mut Section<'_, '_>, key: &'static str) -> Option<Vec<Pointer>> {
    let Some((line, texts)) = texts(s, key) else {
        return (!s.has(key)).then(Vec::new);
    };
    let read: Vec<_> = texts.iter().map(|text| parse_pointer(s, line, key, text)).collect();
    read.into_iter().collect()
}

/// `meta = { seed = "/seed" }`.
fn meta(s: &mut Section<'_, '_>) -> Option<Vec<(String, Pointer)>> {
    let Some(entries) = s.entries("meta") else {
        return (!s.has("meta")).then(Vec::new);
    };
    let read: Vec<_> = entries
        .iter()
        .map(|entry| {
            let key = format!("meta.{}", entry.name);
            let Some(text) = entry.value.as_str() else {
                s.fault(
                    entry.line,
                    format_args!("`{key}` is not a text"),
                    "write a JSON pointer in quotes",
                );
                return None;
            };
            Some((entry.name.to_owned(), parse_pointer(s, entry.line, &key, text)?))
        })
        .collect();
    read.into_iter().collect()
}

fn billed(mut s: Section<'_, '_>) -> Option<Billed> {
    let place = place(&mut s);
    if let Some(None) = place {
        s.fault(s.line, "nothing says where the number stands", "add `at` or `header`");
    }
    let unit = s.required_text("unit", "\"second\"").map(|spot| spot.value.to_owned());
    s.finish();
    Some(Billed {
        place: place??,
        unit: unit?,
    })
}

/// `at = "/pointer"` or `header = "x-name"`; `Some(None)` when there is neither.
fn place(s: &mut Section<'_, '_>) -> Option<Option<Place>> {
    let at = optional(s, "at", pointer);
    let header = optional(s, "header", Section::text);
    match (at?, header?) {
        (Some(_), Some(header)) => {
            s.fault(header.line, "there are both `at` and `header`", "write one of them");
            None
        }
        (Some(at), None) => Some(Some(Place::Body(at))),
        (None, Some(header)) => Some(Some(Place::Header(header.value.to_ascii_lowercase()))),
        (None, None) => Some(None),
    }
}

/// `states = { THEIR_WORD = "running" }`; none when the key is not there.
pub(super) fn states(s: &mut Section<'_, '_>) -> Option<States> {
    let Some(entries) = s.entries("states") else {
        return (!s.has("states")).then(States::new);
    };
    let mut states = States::new();
    let mut whole = true;
    for entry in entries {
        let meaning = entry.value.as_str();
        match STAGES.iter().find(|(name, _)| meaning == Some(name)) {
            Some((_, stage)) => drop(states.insert(entry.name.to_owned(), *stage)),
            None => {
                let names = STAGES.map(|(name, _)| name);
                let what = match meaning {
                    Some(meaning) => format!("the word `{}` means `{meaning}`", entry.name),
                    None => format!("the word `{}` has no meaning in quotes", entry.name),
                };
                s.fault(entry.line, what, format!("write {}", one_of(&names)));
                whole = false;
            }
        }
    }
    whole.then_some(states)
}

/// `[[providers.NAME.outputs]]`.
pub(super) fn outputs(s: &mut Section<'_, '_>) -> Option<Vec<OutputRule>> {
    let label = table(s, "outputs");
    let sections = s.listed_sections("outputs");
    if sections.is_empty() {
        if !s.has("outputs") {
            s.fault(
                s.line,
                "nothing says where the outputs stand",
                "add for example outputs = [{ at = \"/images\", kind = \"image\" }]",
            );
        }
        return None;
    }
    let read: Vec<_> = sections
        .into_iter()
        .map(|mut s| {
            label.clone_into(&mut s.label);
            let at = pointer(&mut s, "at");
            let kind = s.choice("kind", &KINDS);
            let form = s.choice("as", &FORMS);
            let whole = matches!(&form, Some(form) if form.value == OutputForm::Body);
            match (whole, s.has("at")) {
                (false, false) => s.missing("at", "\"/images\", the pointer to one output or a list of them"),
                (true, true) => s.fault(s.line_of("at"), "the whole answer has no pointer", "remove `at`"),
                _ => {}
            }
            let content_type = s.text("content_type").map(|spot| spot.value.to_owned());
            let broken = (s.has("kind") && kind.is_none()) || (s.has("as") && form.is_none());
            s.finish();
            (!broken).then_some(OutputRule {
                kind: kind.map_or("any", |spot| spot.value),
                at: if whole { Pointer::default() } else { at? },
                form: form.map_or(OutputForm::Url, |spot| spot.value),
                content_type,
            })
        })
        .collect();
    read.into_iter().collect()
}

/// `[[providers.NAME.errors]]`.
pub(super) fn errors(s: &mut Section<'_, '_>, has_code: bool) -> Option<Vec<ErrorClass>> {
    let label = table(s, "errors");
    let read: Vec<_> = s
        .listed_sections("errors")
        .into_iter()
        .map(|mut section| {
            label.clone_into(&mut section.label);
            let class = error(&mut section, has_code);
            section.finish();
            class
        })
        .collect();
    read.into_iter().collect()
}

fn error(s: &mut Section<'_, '_>, has_code: bool) -> Option<ErrorClass> {
    let on = optional(s, "on", |s, key| s.choice(key, &ONS).map(|spot| spot.value));
    let status = statuses(s);
    let code = optional(s, "code", texts);
    if let (Some(Some((line, _))), false) = (&code, has_code) {
        let remedy = "add `code` to the `job` table: the pointer to the API's error code";
        s.fault(*line, "`code` is compared with nothing", remedy);
    }
    let place = place(s);
    let is = optional(s, "is", texts);
    let contains = optional(s, "contains", texts);
    let meaning = s.choice("kind", &MEANINGS);
    if !s.has("kind") {
        let names = MEANINGS.map(|(name, _)| name);
        s.missing("kind", &format!("one of {}", one_of(&names)));
    }
    let retry = optional(s, "retry", |s, key| s.choice(key, &RETRIES).map(|spot| spot.value));
    let message = optional(s, "message", |s, key| s.text(key).map(|spot| spot.value.to_owned()));
    let probe = probe(s, place?, is?, contains?)?;
    let code = code?.map(|(_, codes)| codes).unwrap_or_default();
    let status = status?;
    if status.is_empty() && code.is_empty() && probe.is_none() {
        let what = "it would fit every error";
        s.fault(s.line, what, "add `status`, `code`, `at` or `header`");
        return None;
    }
    let (on, meaning) = (on?, meaning?);
    let (needed, wanted) = match meaning.value {
        Meaning::Kind(ErrorKind::UnknownOutcome) => (Some(On::Submit), "submit"),
        Meaning::NotYet => (Some(On::Result), "result"),
        Meaning::Kind(_) => (None, ""),
    };
    if needed.is_some() && on != needed {
        let what = format!("this kind means something for `{wanted}` only");
        s.fault(meaning.line, what, format!("add on = \"{wanted}\""));
        return None;
    }
    Some(ErrorClass {
        on,
        status,
        code,
        probe,
        meaning: meaning.value,
        retry: retry?.unwrap_or_else(|| usual_retry(meaning.value)),
        message: message?,
    })
}

type Texts = Option<(usize, Vec<String>)>;

/// What must stand at a place.
fn probe(s: &Section<'_, '_>, place: Option<Place>, is: Texts, contains: Texts) -> Option<Option<Probe>> {
    let test = match (is, contains) {
        (Some(_), Some((line, _))) => {
            s.fault(line, "there are both `is` and `contains`", "write two classes");
            return None;
        }
        (Some((_, is)), None) => Some(Test::Is(is)),
        (None, Some((_, parts))) => Some(Test::Contains(parts.iter().map(|part| part.to_lowercase()).collect())),
        (None, None) => None,
    };
    match (place, test) {
        (Some(place), test) => {
            let test = test.unwrap_or(Test::Present);
            Some(Some(Probe { place, test }))
        }
        (None, Some(_)) => {
            let what = "nothing says what is compared";
            s.fault(s.line, what, "add `at` or `header`, or write `code` instead of `is`");
            None
        }
        (None, None) => Some(None),
    }
}

/// What makes sense after a failure of a kind, when the operator does not say.
fn usual_retry(meaning: Meaning) -> Retry {
    use ErrorKind::{Auth, ContentPolicy, NotFound, Quota, RateLimited, Timeout, Unavailable};
    match meaning {
        Meaning::Kind(RateLimited | Unavailable | Timeout) => Retry::SameProvider,
        Meaning::Kind(Auth | Quota | ContentPolicy | NotFound) => Retry::OtherProvider,
        _ => Retry::Never,
    }
}

/// `status = 422`, `status = "5xx"` or a list of these.
fn statuses(s: &mut Section<'_, '_>) -> Option<Vec<(u16, u16)>> {
    let Some(spot) = s.raw("status") else {
        return Some(Vec::new());
    };
    let items: Vec<&DeValue<'_>> = match spot.value {
        DeValue::Array(items) => items.iter().map(|item| item.get_ref()).collect(),
        one => vec![one],
    };
    let read: Option<Vec<_>> = items.into_iter().map(status).collect();
    if read.is_none() {
        let what = "`status` is not an HTTP status";
        s.fault(
            spot.line,
            what,
            "write a number such as 422, a class such as \"5xx\", or a list of these",
        );
    }
    read
}

fn status(value: &DeValue<'_>) -> Option<(u16, u16)> {
    match value {
        DeValue::Integer(number) => {
            let status = number.as_str().parse().ok().filter(|s| (100..=599).contains(s))?;
            Some((status, status))
        }
        DeValue::String(text) => {
            let class = text
                .strip_suffix("xx")?
                .parse::<u16>()
                .ok()
                .filter(|c| (1..=5).contains(c))?;
            Some((class * 100, class * 100 + 99))
        }
        _ => None,
    }
}
