//! `kind = "http"`: a provider that is described in the registry only.

mod answer;
#[cfg(test)]
mod document_tests;
mod flow;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use url::Url;

use crate::catalog::declaration::{Declaration, Hole, JobShape, Pointer, Polling, Request, Stage, States, Template};
use crate::document::{Section, one_of};
use request::Op;

/// The keys that an entry of this kind shares with others.
pub(super) struct Shared<'e> {
    pub(super) hosts: Option<&'e [String]>,
    pub(super) allow_private: bool,
    pub(super) secrets: &'e BTreeMap<String, String>,
}

/// A request that may be missing, with its line; the inner `None` when something in it is wrong (which has been noted).
type OptionalRequest = Option<(usize, Option<Request>)>;

/// Reads what is special to this kind; `None` when something in it is wrong (which has been noted).
pub(super) fn read(s: &mut Section<'_, '_>, shared: &Shared<'_>) -> Option<Declaration> {
    let base = base_url(s, shared);
    let headers = request::headers(s, Op::Any);
    let mut repeatable = false;
    let submit = match open(s, "submit") {
        Some(mut section) => {
            repeatable = section.boolean("repeatable").is_some_and(|spot| spot.value);
            let request = request::read(&mut section, Op::Submit);
            section.finish();
            request
        }
        None => {
            missing_table(s, "submit", "the request that starts a job");
            None
        }
    };
    let [status, result, cancel] =
        [("status", Op::Status), ("result", Op::Result), ("cancel", Op::Cancel)].map(|(key, op)| {
            open(s, key).map(|mut section| {
                let line = section.line;
                let request = request::read(&mut section, op);
                section.finish();
                (line, request)
            })
        });
    let job = answer::job(s);
    let states = answer::states(s);
    let outputs = answer::outputs(s);
    let errors = answer::errors(s, job.as_ref().is_none_or(|job| !job.shape.code.is_empty()));
    let pace = flow::pace(s);
    let webhook = flow::webhook(s, job.as_ref());
    let names_hook = submit.as_ref().is_some_and(asks_for_webhook);
    match &webhook {
        Some((line, _)) if submit.is_some() && !names_hook => s.fault(
            *line,
            "there is a webhook, but `submit` does not say where it shall go",
            "add \"{webhook_url}\" to the query or the body of `submit`",
        ),
        None if names_hook && !s.has("webhook") => s.fault(
            s.line,
            "`submit` asks for a webhook, but nothing says how it is signed",
            format!("add {} or remove `{{webhook_url}}`", table(s, "webhook")),
        ),
        _ => {}
    }

    // Rules between parts only mean something when the parts could be read.
    let readable = job.is_some();
    let (shape, id) = job.map_or((JobShape::default(), None), |job| (job.shape, job.id));
    let has_result = result.is_some();
    let polling = match (status, id) {
        (Some((line, status)), id) => {
            if readable {
                check_polling(s, line, &shape, id.as_ref(), &states, status.as_ref(), has_result);
            }
            let optional = |request: OptionalRequest| match request {
                Some((_, None)) => None,
                Some((_, request)) => Some(request),
                None => Some(None),
            };
            // An incomplete part has been noted; then the whole is not made.
            let whole = (|| {
                Some(Polling {
                    id: id?,
                    state: shape.state.clone()?,
                    status: status?,
                    result: optional(result)?,
                    cancel: optional(cancel)?,
                    pace: pace?,
                    webhook: webhook.map_or(Some(None), |(_, webhook)| webhook.map(Some))?,
                })
            })();
            Some(whole?)
        }
        (None, _) if !readable => return None,
        (None, id) => {
            check_synchronous(
                s,
                id.as_ref(),
                &[("result", &result), ("cancel", &cancel)],
                &shape,
                &states,
            );
            None
        }
    };

    let (base_url, host) = base?;
    let mut hosts = vec![host];
    hosts.extend(shared.hosts.unwrap_or_default().iter().map(|h| h.to_ascii_lowercase()));
    let mut seen = Vec::new();
    hosts.retain(|host| {
        !seen.contains(host) && {
            seen.push(host.clone());
            true
        }
    });
    let keys_host = polling.as_ref().and_then(|p| flow::keys_host(p.webhook.as_ref()?));
    let mut declaration = Declaration {
        base_url,
        keys_host: keys_host.filter(|host| !hosts.contains(host)),
        hosts,
        secrets: Vec::new(),
        headers: headers?,
        submit: submit?,
        repeatable,
        polling,
        job: shape,
        states: states?,
        outputs: outputs?,
        errors: errors?,
    };
    declaration.secrets = secrets_of(&declaration);
    check_secrets(s, &declaration, shared.secrets);
    Some(declaration)
}

/// A table of this entry, with its own label.
fn open<'a, 't>(s: &mut Section<'a, 't>, key: &'static str) -> Option<Section<'a, 't>> {
    let label = table(s, key);
    s.section(key, label)
}

/// `[providers.acme.submit]` of `[providers.acme]` and `submit`.
fn table(s: &Section<'_, '_>, key: &str) -> String {
    format!("{}.{key}]", s.label.trim_end_matches(']'))
}

fn missing_table(s: &Section<'_, '_>, key: &str, what: &str) {
    s.fault(
        s.line,
        format_args!("`{key}` is missing"),
        format!("add {}: {what}", table(s, key)),
    );
}

/// A JSON pointer.
fn pointer(s: &mut Section<'_, '_>, key: &'static str) -> Option<Pointer> {
    let spot = s.text(key)?;
    parse_pointer(s, spot.line, key, spot.value)
}

fn parse_pointer(s: &Section<'_, '_>, line: usize, key: &str, text: &str) -> Option<Pointer> {
    match Pointer::parse(text) {
        Ok(pointer) => Some(pointer),
        Err(what) => {
            let what = format!("`{key}` is the pointer `{text}`, which {what}");
            s.fault(
                line,
                what,
                "write a JSON pointer as in \"/job/status\" (`~1` for `/`, `~0` for `~`, `*` for every element of a list)",
            );
            None
        }
    }
}

/// What `read` makes of a key: `Some(None)` when it is not there, `None` when it is wrong. The key counts as asked for
/// either way, so that messages about unknown keys name it.
fn optional<'a, 't, T>(
    s: &mut Section<'a, 't>,
    key: &'static str,
    read: impl FnOnce(&mut Section<'a, 't>, &'static str) -> Option<T>,
) -> Option<Option<T>> {
    match (read(s, key), s.has(key)) {
        (None, true) => None,
        (value, _) => Some(value),
    }
}

/// A text or a list of texts.
fn texts(s: &mut Section<'_, '_>, key: &'static str) -> Option<(usize, Vec<String>)> {
    let spot = s.raw(key)?;
    if let Some(text) = spot.value.as_str() {
        return Some((spot.line, vec![text.to_owned()]));
    }
    s.texts(key).map(|spot| (spot.line, spot.value))
}

fn base_url(s: &mut Section<'_, '_>, shared: &Shared<'_>) -> Option<(String, String)> {
    let spot = s.required_text("base_url", "\"https://api.acme.example/v1\"")?;
    let text = spot.value.trim_end_matches('/');
    let Some(url) = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
    else {
        s.fault(
            spot.line,
            format_args!("`base_url` is `{}`, which is not a web address", spot.value),
            "write for example \"https://api.acme.example/v1\"",
        );
        return None;
    };
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !plain || url.password().is_some() || text.contains(['{', '}']) {
        s.fault(
            spot.line,
            "`base_url` has more than a host and a path",
            "put keys into `headers` or `query`, and placeholders into the `path` of a request",
        );
        return None;
    }
    if url.scheme() == "http" && !shared.allow_private {
        s.fault(
            spot.line,
            "`base_url` is not encrypted",
            "write https, or add allow_private = true for a machine in your own network",
        );
    }
    Some((text.to_owned(), flow::host_of(&url)?))
}

/// Rules of an API whose jobs are asked about.
fn check_polling(
    s: &Section<'_, '_>,
    line: usize,
    shape: &JobShape,
    id: Option<&Pointer>,
    states: &Option<States>,
    status: Option<&Request>,
    has_result: bool,
) {
    if id.is_none() {
        s.fault(
            line,
            "there is `status`, but nothing says where a job's id stands",
            format!(
                "add `id` to {}: the id proves that the job was accepted",
                table(s, "job")
            ),
        );
    }
    if shape.state.is_none() {
        s.fault(
            line,
            "there is `status`, but nothing says where a job's state stands",
            format!("add `state` to {}", table(s, "job")),
        );
    }
    let (Some(states), Some(status)) = (states, status) else {
        return;
    };
    let means = |stage| states.values().chain(status.states.values()).any(|s| *s == stage);
    let mut lacking = Vec::new();
    if !means(Stage::Done) {
        lacking.push("done");
    }
    // A separate result may be what tells of a failure.
    if !means(Stage::Failed) && !has_result {
        lacking.push("failed");
    }
    if !lacking.is_empty() {
        s.fault(
            line,
            format_args!("no word of the API means {}", one_of(&lacking)),
            format!("add it to {}, as in FINISHED = \"{}\"", table(s, "states"), lacking[0]),
        );
    }
}

/// Rules of an API that answers the submit with the result.
fn check_synchronous(
    s: &Section<'_, '_>,
    id: Option<&Pointer>,
    others: &[(&str, &OptionalRequest)],
    shape: &JobShape,
    states: &Option<States>,
) {
    if id.is_some() {
        let what = "a job has an id, but nothing asks how far it is";
        let remedy = format!(
            "add {}, or remove `id` if the answer to `submit` is the result",
            table(s, "status")
        );
        s.fault(s.line, what, remedy);
    }
    for (key, request) in others {
        if let Some((line, _)) = request {
            let what = format!("there is `{key}` without `status`");
            s.fault(*line, what, format!("add {}, which says when", table(s, "status")));
        }
    }
    for key in ["webhook", "poll"] {
        if s.has(key) {
            let what = format!("there is `{key}` without `status`");
            let remedy = format!("add {}: webhooks get lost, and then it is asked", table(s, "status"));
            let alone = "remove it: there is nothing to poll".to_owned();
            s.fault(s.line_of(key), what, if key == "poll" { alone } else { remedy });
        }
    }
    if shape.state.is_none() && states.as_ref().is_some_and(|states| !states.is_empty()) {
        let what = "there are `states`, but nothing says where a state stands";
        s.fault(s.line_of("states"), what, format!("add `state` to {}", table(s, "job")));
    }
}

fn asks_for_webhook(submit: &Request) -> bool {
    let mut holes = templates(submit).into_iter().flat_map(Template::holes);
    holes.any(|hole| *hole == Hole::WebhookUrl)
}

fn templates(request: &Request) -> Vec<&Template> {
    let named = request
        .headers
        .iter()
        .chain(&request.query)
        .map(|(_, template)| template);
    let body = request.body.iter().flat_map(|body| body.templates());
    request.path.iter().chain(named).chain(body).collect()
}

/// Every secret that a template names, each once.
fn secrets_of(declaration: &Declaration) -> Vec<String> {
    let polling = declaration.polling.as_ref();
    let asked = polling
        .into_iter()
        .flat_map(|p| [Some(&p.status), p.result.as_ref(), p.cancel.as_ref()]);
    let requests = std::iter::once(&declaration.submit).chain(asked.flatten());
    let common = declaration.headers.iter().map(|(_, template)| template);
    let mut names: Vec<String> = Vec::new();
    for name in common.chain(requests.flat_map(templates)).flat_map(Template::secrets) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A variable for a secret that nothing uses is a typing mistake.
fn check_secrets(s: &Section<'_, '_>, declaration: &Declaration, variables: &BTreeMap<String, String>) {
    let mut known: Vec<&str> = declaration.secrets.iter().map(String::as_str).collect();
    known.extend(
        declaration
            .polling
            .as_ref()
            .and_then(|p| flow::secret_of(p.webhook.as_ref()?)),
    );
    for name in variables.keys().filter(|name| !known.contains(&name.as_str())) {
        s.fault(
            s.line_of("secrets"),
            format_args!("`secrets.{name}` is not a secret of this provider"),
            format!("its secrets are {}", one_of(&known)),
        );
    }
}
