//! Faults: where something goes wrong ([`Point`]), what goes wrong ([`Action`]), and how often ([`Rule`]).
//!
//! A rule comes from the test's handle, from `POST /_sim/faults`, or from words in the prompt. All three use the same
//! spelling of points and actions; the module doc of [`super`] lists them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The operation at which a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// `POST /{endpoint}`.
    Submit,
    /// `POST /run/{endpoint}`.
    Run,
    /// `GET .../status`.
    Status,
    /// `GET .../status/stream`, before the first event.
    Stream,
    /// `GET .../requests/{id}`.
    Result,
    /// `PUT .../cancel`.
    Cancel,
    /// `GET /media/...`.
    Media,
    /// The delivery of the webhook.
    Webhook,
    /// The course of the job itself.
    Job,
}

/// What goes wrong. [`FromStr`] gives the spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Action {
    /// `503`: answer this status and do nothing.
    Status(u16),
    /// `cut`: close the connection without a byte and do nothing.
    Cut,
    /// `hang`: do nothing and never answer.
    Hang,
    /// `accept_then_503`: carry the operation out, answer this status.
    ThenStatus(u16),
    /// `accept_then_cut`: carry the operation out, close the connection without a byte.
    ThenCut,
    /// `accept_then_hang`: carry the operation out, never answer.
    ThenHang,
    /// `half`: carry it out; announce the whole body, send half of it, cut.
    HalfBody,
    /// `garbage`: carry it out; right status and content type, body is not JSON.
    Garbage,
    /// `wrong_type`: carry it out; right status, an HTML page.
    WrongContentType,
    /// `slow:MS`: wait, then behave. For media: one small chunk per wait.
    Slow(u64),
    /// `oversized:BYTES`: media only; a body of that size without a declared length.
    Oversized(u64),
    /// `duplicate`: webhook only; delivered three times.
    Duplicate,
    /// `lie`: webhook only; says `OK` at once although the job runs on, then the true one.
    Lie,
    /// `drop`: webhook only; never delivered.
    Drop,
    /// `bad_signature`: webhook only.
    BadSignature,
    /// `stale`: webhook only; correctly signed, an hour old.
    Stale,
    /// `fail` (`internal_server_error`), `policy` (`content_policy_violation`), `runner` (`runner_server_error`) or
    /// `error:TYPE`: job only; it ends so.
    Fail(String),
    /// `never`: job only; stays in progress until told otherwise.
    Never,
    /// `fewer`: job only; delivers one image less than asked.
    Fewer,
    /// `no_media`: job only; `200` with no media at all.
    NoMedia,
    /// `queue_ms:MS`: job only.
    QueueMs(u64),
    /// `run_ms:MS`: job only.
    RunMs(u64),
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let number = || {
            argument
                .and_then(|digits| digits.parse::<u64>().ok())
                .ok_or_else(|| format!("action `{text}`: needs a number, for example `{name}:250`"))
        };
        let status = |digits: &str| digits.parse::<u16>().ok().filter(|code| (200..=599).contains(code));
        if let Some(code) = status(name) {
            return Ok(Self::Status(code));
        }
        if let Some(code) = name.strip_prefix("accept_then_").and_then(status) {
            return Ok(Self::ThenStatus(code));
        }
        Ok(match name {
            "cut" => Self::Cut,
            "hang" => Self::Hang,
            "accept_then_cut" => Self::ThenCut,
            "accept_then_hang" => Self::ThenHang,
            "half" => Self::HalfBody,
            "garbage" => Self::Garbage,
            "wrong_type" => Self::WrongContentType,
            "slow" => Self::Slow(number()?),
            "oversized" => Self::Oversized(number()?),
            "duplicate" => Self::Duplicate,
            "lie" => Self::Lie,
            "drop" => Self::Drop,
            "bad_signature" => Self::BadSignature,
            "stale" => Self::Stale,
            "fail" => Self::Fail("internal_server_error".to_owned()),
            "policy" => Self::Fail("content_policy_violation".to_owned()),
            "runner" => Self::Fail("runner_server_error".to_owned()),
            "error" => {
                let error_type = argument.unwrap_or_default();
                if super::errors::Failure::of_type(error_type).is_none() {
                    return Err(format!("action `{text}`: FAL documents no error type `{error_type}`"));
                }
                Self::Fail(error_type.to_owned())
            }
            "never" => Self::Never,
            "fewer" => Self::Fewer,
            "no_media" => Self::NoMedia,
            "queue_ms" => Self::QueueMs(number()?),
            "run_ms" => Self::RunMs(number()?),
            _ => return Err(format!("unknown action `{text}`")),
        })
    }
}

impl TryFrom<String> for Action {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        match action {
            Action::Status(code) => code.to_string(),
            Action::ThenStatus(code) => format!("accept_then_{code}"),
            Action::Cut => "cut".into(),
            Action::Hang => "hang".into(),
            Action::ThenCut => "accept_then_cut".into(),
            Action::ThenHang => "accept_then_hang".into(),
            Action::HalfBody => "half".into(),
            Action::Garbage => "garbage".into(),
            Action::WrongContentType => "wrong_type".into(),
            Action::Slow(ms) => format!("slow:{ms}"),
            Action::Oversized(bytes) => format!("oversized:{bytes}"),
            Action::Duplicate => "duplicate".into(),
            Action::Lie => "lie".into(),
            Action::Drop => "drop".into(),
            Action::BadSignature => "bad_signature".into(),
            Action::Stale => "stale".into(),
            Action::Fail(error_type) => format!("error:{error_type}"),
            Action::Never => "never".into(),
            Action::Fewer => "fewer".into(),
            Action::NoMedia => "no_media".into(),
            Action::QueueMs(ms) => format!("queue_ms:{ms}"),
            Action::RunMs(ms) => format!("run_ms:{ms}"),
        }
    }
}

/// One fault: at this point do this, so many times, for these requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it strikes.
    pub at: Point,
    /// What happens.
    pub action: Action,
    /// How often; `None` until cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// Let so many matching operations pass first.
    #[serde(default)]
    pub skip: u32,
    /// Only this endpoint id.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Only requests whose prompt contains this text.
    #[serde(default)]
    pub prompt: Option<String>,
}

impl Rule {
    /// A rule for every request, until cleared.
    #[must_use]
    pub fn new(at: Point, action: Action) -> Self {
        Self {
            at,
            action,
            times: None,
            skip: 0,
            endpoint: None,
            prompt: None,
        }
    }

    /// Limits how often the rule strikes.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets so many matching operations pass before the rule strikes.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Only for requests whose prompt contains `text`.
    #[must_use]
    pub fn prompt(mut self, text: impl Into<String>) -> Self {
        self.prompt = Some(text.into());
        self
    }

    /// Only for this endpoint id.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Whether the rule is about this operation at all, and if so, whether it strikes now (which uses it up).
    fn strike(&mut self, at: Point, endpoint: &str, prompt: &str) -> Option<Action> {
        let matches = self.at == at
            && self.endpoint.as_deref().is_none_or(|only| only == endpoint)
            && self.prompt.as_deref().is_none_or(|only| prompt.contains(only));
        if !matches || self.times == Some(0) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        Some(self.action.clone())
    }
}

/// The first rule that strikes this operation, used up by one.
pub(super) fn strike(rules: &mut [Rule], at: Point, endpoint: &str, prompt: &str) -> Option<Action> {
    rules.iter_mut().find_map(|rule| rule.strike(at, endpoint, prompt))
}

/// Every rule that strikes a job at this point; a job may have several (`queue_ms` and `fail`).
pub(super) fn strike_all(rules: &mut [Rule], at: Point, endpoint: &str, prompt: &str) -> Vec<Action> {
    rules
        .iter_mut()
        .filter_map(|rule| rule.strike(at, endpoint, prompt))
        .collect()
}

/// Reads `[sim:POINT=ACTION*TIMES]` and `[sim:ACTION]` (point `job`) from a prompt.
///
/// # Errors
/// What is wrong with a word that starts with `[sim:`, so that a misspelt test fails instead of passing.
pub fn rules_in_prompt(prompt: &str) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for part in prompt.split("[sim:").skip(1) {
        let Some((word, _)) = part.split_once(']') else {
            return Err(format!("`[sim:{part}`: no closing bracket"));
        };
        let (word, times) = match word.split_once('*') {
            Some((word, times)) => {
                let times = times
                    .parse()
                    .map_err(|_| format!("`[sim:{word}*{times}]`: `{times}` is not a count"))?;
                (word, Some(times))
            }
            None => (word, None),
        };
        let (at, action) = match word.split_once('=') {
            Some((point, action)) => {
                let point = serde_json::from_value(serde_json::Value::from(point))
                    .map_err(|_| format!("`[sim:{word}]`: unknown point `{point}`"))?;
                (point, action)
            }
            None => (Point::Job, word),
        };
        let action = action.parse().map_err(|error| format!("`[sim:{word}]`: {error}"))?;
        rules.push(Rule {
            times,
            ..Rule::new(at, action)
        });
    }
    Ok(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn prompt_words_give_rules() {
        let rules = rules_in_prompt("a cat [sim:fail] [sim:submit=accept_then_cut*1] and [sim:media=slow:20]").unwrap();
        assert_eq!(
            rules,
            [
                Rule::new(Point::Job, Action::Fail("internal_server_error".into())),
                Rule::new(Point::Submit, Action::ThenCut).times(1),
                Rule::new(Point::Media, Action::Slow(20)),
            ]
        );
        for wrong in [
            "[sim:fial]",
            "[sim:submit=]",
            "[sim:nowhere=cut]",
            "[sim:error:nonsense]",
            "[sim:fail",
            "[sim:submit=503*x]",
            "[sim:media=slow]",
        ] {
            assert!(rules_in_prompt(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn actions_are_written_as_they_are_read() {
        for text in [
            "503",
            "accept_then_502",
            "cut",
            "hang",
            "accept_then_cut",
            "accept_then_hang",
            "half",
            "garbage",
            "wrong_type",
            "slow:5",
            "oversized:9",
            "duplicate",
            "lie",
            "drop",
            "bad_signature",
            "stale",
            "error:runner_disconnected",
            "never",
            "fewer",
            "no_media",
            "queue_ms:1",
            "run_ms:2",
        ] {
            assert_eq!(String::from(text.parse::<Action>().unwrap()), text);
        }
    }

    #[test]
    fn a_rule_skips_strikes_and_is_used_up() {
        let mut rules = vec![
            Rule::new(Point::Status, Action::Status(500))
                .skip(1)
                .times(2)
                .prompt("cat"),
        ];
        let mut struck = Vec::new();
        for prompt in ["cat", "dog", "a cat", "cat", "cat"] {
            struck.push(strike(&mut rules, Point::Status, "e", prompt).is_some());
        }
        assert_eq!(struck, [false, false, true, true, false]);
        assert_eq!(strike(&mut rules, Point::Submit, "e", "cat"), None);
    }
}
