//! Reads the API's answers and webhooks by the declaration's pointers.

use serde_json::Number;
use url::Url;
use velro_plugin::{Header, Map, Outcome, Output, Progress, Quote, Response, Source, Value};

use super::state::Urls;
use crate::catalog::declaration::{
    Declaration, JobShape, OutputForm, OutputRule, Place, Pointer, Polling, Stage, States,
};
use crate::provider::reading;

/// Most outputs of one job.
const MOST_OUTPUTS: usize = 256;
/// Longest value kept beside the outputs, in bytes of JSON.
const MOST_META_BYTES: usize = 4_096;
/// Longest address that is believed.
const MOST_URL_BYTES: usize = 2_048;

/// An answer with its body parsed.
pub(super) struct View<'a> {
    pub(super) answer: Response<'a>,
    /// `None` when it is not JSON.
    pub(super) body: Option<Value>,
}

/// What was found where outputs should be.
pub(super) enum Found {
    /// At least one.
    Outputs(Box<Outcome>),
    /// The place is there, and empty.
    Empty,
    /// Not even the place.
    Nothing,
}

impl<'a> View<'a> {
    pub(super) fn of(answer: Response<'a>) -> Self {
        View {
            body: serde_json::from_slice(answer.body).ok(),
            answer,
        }
    }

    /// A webhook's body.
    pub(super) fn of_hook(body: &'a [u8]) -> Self {
        const NONE: &[Header<'static>] = &[];
        View::of(Response {
            status: 200,
            headers: NONE,
            body,
        })
    }

    /// The value at a pointer, unless it is `null`.
    pub(super) fn at(&self, pointer: &Pointer) -> Option<&Value> {
        pointer.get(self.body.as_ref()?)
    }

    /// The value at a place, as text.
    pub(super) fn word(&self, place: &Place) -> Option<String> {
        match place {
            Place::Body(pointer) => word(self.at(pointer)?),
            Place::Header(name) => self.answer.header(name).map(str::to_owned),
        }
    }

    /// The API's id of the job, if it can stand in a URL.
    pub(super) fn id(&self, pointer: &Pointer) -> Option<String> {
        let id = match self.at(pointer)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        // Braces could be read as a secret's placeholder, dots as a way out of the path.
        let plain = |b: u8| b.is_ascii_graphic() && !b"{}\\<>\"".contains(&b);
        let odd = |segment: &str| matches!(segment, "" | "." | "..");
        let fine = id.len() <= 256 && id.bytes().all(plain) && !id.split('/').any(odd);
        fine.then_some(id)
    }

    /// The word for the state, and what it means.
    pub(super) fn stage(
        &self,
        declaration: &Declaration,
        own: &States,
        at: &Pointer,
    ) -> (Option<String>, Option<Stage>) {
        let word = self.at(at).and_then(word);
        let stage = word.as_deref().and_then(|word| declaration.stage(own, word));
        (word, stage)
    }

    /// How far the job is. `permille` is the largest seen so far.
    pub(super) fn progress(&self, shape: &JobShape, permille: &mut Option<u16>) -> Progress {
        let counted = shape
            .progress
            .as_ref()
            .and_then(|at| permille_of(self.at(at)?, shape.progress_of));
        let (message, read) = match (&shape.log, &self.body) {
            (Some(at), Some(body)) => {
                let texts: Vec<&str> = at
                    .all(body)
                    .into_iter()
                    .filter_map(|(_, value)| value.as_str())
                    .collect();
                reading::log(texts.into_iter().rev().flat_map(|text| text.lines().rev()))
            }
            _ => (None, None),
        };
        // A log that talks about several things is only believed when there is no number. `None` is the smallest.
        *permille = (*permille).max(counted.or(read));
        let position = shape.queue_position.as_ref().and_then(|at| self.at(at)?.as_u64());
        Progress {
            permille: *permille,
            queue_position: position.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            message,
        }
    }

    /// The outputs below a prefix (of a webhook; otherwise the whole answer), in the order of the declaration.
    pub(super) fn outcome(&self, declaration: &Declaration, prefix: &Pointer) -> Found {
        let mut outputs = Vec::new();
        let mut there = false;
        for rule in &declaration.outputs {
            if rule.form == OutputForm::Body {
                outputs.extend(self.whole(rule));
                continue;
            }
            let Some(body) = &self.body else { continue };
            for (at, value) in rule.at.below(prefix).all(body) {
                there = true;
                match value {
                    Value::Array(items) => {
                        for (i, item) in items.iter().enumerate() {
                            outputs.extend(output(rule, &format!("{at}/{i}"), item));
                        }
                    }
                    one => outputs.extend(output(rule, &at, one)),
                }
            }
        }
        outputs.truncate(MOST_OUTPUTS);
        match (outputs.is_empty(), there) {
            (false, _) => Found::Outputs(Box::new(self.with_extras(&declaration.job, prefix, outputs))),
            (true, true) => Found::Empty,
            (true, false) => Found::Nothing,
        }
    }

    /// The answer as a file; `None` when it is a document.
    fn whole(&self, rule: &OutputRule) -> Option<Output> {
        let said = self.answer.header("content-type").unwrap_or_default();
        let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let media = ["image/", "video/", "audio/"].iter().any(|kind| said.starts_with(kind));
        let file = media || said == "application/octet-stream" || said == "binary/octet-stream";
        (file && !self.answer.body.is_empty()).then(|| Output {
            kind: rule.kind.to_owned(),
            source: Source::Body,
            content_type: rule.content_type.clone().or(media.then_some(said)),
            meta: Map::new(),
        })
    }

    fn with_extras(&self, shape: &JobShape, prefix: &Pointer, outputs: Vec<Output>) -> Outcome {
        let kept = shape.meta.iter().filter_map(|(name, at)| {
            let value = self.at(&at.below(prefix))?;
            small(value).then(|| (name.clone(), value.clone()))
        });
        let billed = shape.billed.as_ref().and_then(|billed| {
            let place = match &billed.place {
                Place::Body(at) => Place::Body(at.below(prefix)),
                header => header.clone(),
            };
            Some(Quote {
                usd_micros: 0,
                unit: billed.unit.clone(),
                units_milli: reading::milli(&self.word(&place)?)?,
            })
        });
        Outcome {
            outputs,
            billed,
            meta: kept.collect(),
        }
    }

    /// The addresses that the answer to a submit names, as far as they may be believed.
    pub(super) fn urls(&self, declaration: &Declaration, polling: &Polling) -> Urls {
        let named = |at: Option<&Pointer>| {
            let url = self.at(at?)?.as_str()?;
            is_ours(declaration, url).then(|| url.to_owned())
        };
        Urls {
            status: named(polling.status.url.as_ref()),
            result: named(polling.result.as_ref().and_then(|r| r.url.as_ref())),
            cancel: named(polling.cancel.as_ref().and_then(|r| r.url.as_ref())),
        }
    }
}

/// Secrets are sent there, so nothing but a declared host and the base URL's scheme will do.
fn is_ours(declaration: &Declaration, text: &str) -> bool {
    if text.len() > MOST_URL_BYTES || text.contains("{{") {
        return false;
    }
    let Ok(url) = Url::parse(text) else { return false };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return false,
    };
    declaration.base_url.starts_with(&format!("{}:", url.scheme()))
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && declaration.hosts.contains(&host)
}

/// A short value as text: a flag or a number may be a state or a code too.
pub(super) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `0.45` of 1, `45` or `"45%"` of 100, in thousandths.
fn permille_of(value: &Value, of: u64) -> Option<u16> {
    let milli = match value {
        Value::Number(number) => reading::milli(&plain(number))?,
        Value::String(text) => reading::milli(text.trim().trim_end_matches('%').trim_end())?,
        _ => return None,
    };
    // Some count a little beyond their end.
    u16::try_from((milli / of).min(1_000)).ok()
}

/// A number without an exponent where that is possible: APIs answer 1e-7 for "hardly begun".
fn plain(number: &Number) -> String {
    let text = number.to_string();
    match (text.contains(['e', 'E']), number.as_f64()) {
        (true, Some(float)) => format!("{float:.6}"),
        _ => text,
    }
}

fn output(rule: &OutputRule, at: &str, value: &Value) -> Option<Output> {
    let mut output = match (rule.form, value) {
        (_, Value::String(text)) if is_address(text) => Output::url(rule.kind, text.as_str()),
        (OutputForm::Url, file @ Value::Object(_)) => {
            let mut output = Output::file(rule.kind, file)?;
            let Source::Url(url) = &output.source else { return None };
            if !is_address(url) {
                return None;
            }
            output.meta.retain(|_, value| small(value));
            output
        }
        (OutputForm::Base64, Value::String(text)) if !text.is_empty() => Output {
            kind: rule.kind.to_owned(),
            source: Source::BodyBase64(at.to_owned()),
            content_type: None,
            meta: Map::new(),
        },
        _ => return None,
    };
    if output.content_type.is_none() {
        output.content_type.clone_from(&rule.content_type);
    }
    Some(output)
}

fn is_address(text: &str) -> bool {
    let begins = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    begins("https://") || begins("http://") || begins("data:")
}

fn small(value: &Value) -> bool {
    // A long text needs no second copy to be found long.
    value.as_str().is_none_or(|text| text.len() <= MOST_META_BYTES) && value.to_string().len() <= MOST_META_BYTES
}
