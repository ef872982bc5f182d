//! Requests to ComfyUI, and when the next one is due.

use std::collections::BTreeMap;
use velro_plugin::{BaseUrl, DataUrl, Effect, Fault, FaultCode, Form, HttpRequest, Job, Map, Method, Value, escape};

use crate::config::Workflow;
use crate::state::Ticket;

/// Hands the workflow over, under the attempt's own id: if the answer is lost, we know what to look for.
pub(crate) fn submit(
    base: &BaseUrl,
    workflow: &Workflow,
    job: &Job<'_>,
    stored: &BTreeMap<String, String>,
) -> Result<HttpRequest, Fault> {
    let mut values = job.params.map().clone();
    for (name, file) in stored {
        values.insert(name.clone(), file.as_str().into());
    }
    // Without one, every job would draw the seed that the workflow was exported with.
    if !values.contains_key("seed") {
        values.insert("seed".into(), seed_of(job.id).into());
    }
    let graph = workflow.graph.fill(&values).map_err(|name| {
        let what = format!(
            "the workflow `{}` needs `{name}`, which was not sent: give the parameter a default, put it into `fixed`, or \
             write {{{{{name}=default}}}}",
            job.model
        );
        Fault::new(FaultCode::BadInput, what)
    })?;
    let mut body = Map::new();
    body.insert("prompt".into(), graph);
    body.insert("prompt_id".into(), job.id.into());
    body.insert("client_id".into(), "velro".into());
    Ok(HttpRequest::submit(base.join("/prompt")).json_body(Value::Object(body).to_string()))
}

/// A seed that the attempt's id decides (FNV-1a), small enough for every node and for JSON.
fn seed_of(id: &str) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 16
}

/// A reference image that has to be uploaded before the submit.
pub(crate) enum Upload {
    Next(String, HttpRequest),
    Unreadable,
    Done,
}

/// The next upload of the workflow's inputs.
pub(crate) fn upload(
    base: &BaseUrl,
    workflow: &Workflow,
    job: &Job<'_>,
    stored: &BTreeMap<String, String>,
) -> Result<Upload, Fault> {
    let next = workflow.uploads.iter().filter(|name| !stored.contains_key(*name));
    let Some((name, url)) = next.filter_map(|name| Some((name, job.params.str(name)?))).next() else {
        return Ok(Upload::Done);
    };
    if !DataUrl::is(url) {
        let what = format!(
            "`{name}` is a link, and ComfyUI takes files: leave PUBLIC_URL unset, or take `{name}` out of `uploads` and \
             use a node that loads from a URL"
        );
        return Err(Fault::new(FaultCode::BadInput, what));
    }
    let known = ["image/png", "image/jpeg", "image/webp", "image/gif"];
    let Some(data) = DataUrl::parse(url).filter(|data| known.contains(&data.content_type.as_str())) else {
        return Ok(Upload::Unreadable);
    };
    let file_name = format!("velro-{}-{name}.{}", job.id, data.extension());
    let request = HttpRequest::new(Method::Post, base.join("/upload/image"), Effect::Write);
    let form = Form::new()
        .text("type", "input")
        .text("overwrite", "true")
        .file("image", &file_name, data);
    Ok(Upload::Next(name.clone(), form.body_of(request, job.id)))
}

pub(crate) fn history(base: &BaseUrl, id: &str) -> HttpRequest {
    HttpRequest::get(base.join(&format!("/history/{}", escape(id))))
}

pub(crate) fn queue(base: &BaseUrl) -> HttpRequest {
    HttpRequest::get(base.join("/queue"))
}

/// Takes the job out of the queue; without effect once it runs.
pub(crate) fn delete(base: &BaseUrl, id: &str) -> HttpRequest {
    let body = serde_json::json!({ "delete": [id] });
    HttpRequest::new(Method::Post, base.join("/queue"), Effect::Write).json_body(body.to_string())
}

/// Stops the job that runs, if it has this id; an older ComfyUI does not look at the id.
pub(crate) fn interrupt(base: &BaseUrl, id: &str) -> HttpRequest {
    let body = serde_json::json!({ "prompt_id": id });
    HttpRequest::new(Method::Post, base.join("/interrupt"), Effect::Write).json_body(body.to_string())
}

/// Time to the next look in milliseconds: a tenth of the time the job has taken so far.
pub(crate) fn pace_ms(job: &Job<'_>, ticket: &Ticket) -> u64 {
    let elapsed = job.now_ms.saturating_sub(ticket.since_ms);
    let slowest = if ticket.stopping { 2_000 } else { 5_000 };
    (elapsed / 10).clamp(500, slowest)
}

/// Time to the next try after the `errors`-th unhelpful answer in a row, in milliseconds.
pub(crate) fn backoff_ms(errors: u32) -> u64 {
    (500_u64 << errors.min(6)).clamp(1_000, 30_000)
}
