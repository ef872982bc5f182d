//! Requests to Replicate, and when the next one is due.

use velro_plugin::{BaseUrl, Effect, Fault, FaultCode, HttpRequest, Job, Map, Method, Value, escape};

use crate::state::Ticket;

const AUTHORIZATION: &str = "Bearer {{secret:REPLICATE_API_TOKEN}}";

/// The paid request.
///
/// No `Prefer: wait`: a blocking answer brings the id only at its end, and a connection that breaks before leaves a
/// prediction that runs, is billed and has no name. Without it the id is here in milliseconds.
pub(crate) fn create(base: &BaseUrl, job: &Job<'_>) -> Result<HttpRequest, Fault> {
    let (path, version) = target(job.model)?;
    let mut body = Map::new();
    body.insert("input".into(), Value::Object(job.params.map().clone()));
    if let Some(version) = version {
        body.insert("version".into(), version.into());
    }
    if let Some(hook) = job.webhook_url {
        body.insert("webhook".into(), hook.into());
        body.insert("webhook_events_filter".into(), vec!["completed"].into());
    }
    let request = HttpRequest::submit(base.join(&path))
        .header("authorization", AUTHORIZATION)
        .header("accept", "application/json")
        .json_body(Value::Object(body).to_string());
    Ok(match cancel_after_s(job) {
        Some(seconds) => request.header("cancel-after", format!("{seconds}s")),
        None => request,
    })
}

/// Replicate ends the prediction itself when we would: also when we are away. Its shortest deadline is five seconds.
fn cancel_after_s(job: &Job<'_>) -> Option<u64> {
    Some(job.deadline_ms.saturating_sub(job.now_ms) / 1_000).filter(|&s| s >= 5)
}

/// Path of the create request for a model's name, and the version that goes into its body.
///
/// `owner/name` is an official model, `owner/name:version` or a bare version any public or own one, and
/// `deployments/owner/name` a deployment.
fn target(model: &str) -> Result<(String, Option<&str>), Fault> {
    let unknown = || {
        let what = format!(
            "`{model}` is no model of Replicate: write owner/name, owner/name:version, a version of 64 hex digits or \
             deployments/owner/name"
        );
        Fault::new(FaultCode::BadInput, what)
    };
    if is_version(model) {
        return Ok(("/predictions".into(), Some(model)));
    }
    let (name, version) = match model.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (model, None),
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || matches!(*part, "." | "..")) {
        return Err(unknown());
    }
    match (parts.as_slice(), version) {
        ([_, _], Some(version)) if is_version(version) => Ok(("/predictions".into(), Some(version))),
        ([owner, name], None) => Ok((format!("/models/{}/{}/predictions", escape(owner), escape(name)), None)),
        (["deployments", owner, name], None) => Ok((
            format!("/deployments/{}/{}/predictions", escape(owner), escape(name)),
            None,
        )),
        _ => Err(unknown()),
    }
}

fn is_version(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Asks how far the prediction is.
pub(crate) fn poll(base: &BaseUrl, ticket: &Ticket) -> HttpRequest {
    HttpRequest::get(base.join(&format!("/predictions/{}", escape(&ticket.id))))
        .header("authorization", AUTHORIZATION)
        .header("accept", "application/json")
}

/// Asks Replicate to stop. Repeating it does no harm.
pub(crate) fn cancel(base: &BaseUrl, ticket: &Ticket) -> HttpRequest {
    let url = base.join(&format!("/predictions/{}/cancel", escape(&ticket.id)));
    HttpRequest::new(Method::Post, url, Effect::Write)
        .header("authorization", AUTHORIZATION)
        .header("accept", "application/json")
}

/// Time to the next poll in milliseconds: a tenth of the time the prediction has taken so far, so that the end is
/// noticed at most about ten percent late. With a webhook, polling keeps the progress fresh and catches webhooks that
/// never come.
pub(crate) fn pace_ms(job: &Job<'_>, ticket: &Ticket) -> u64 {
    let elapsed = job.now_ms.saturating_sub(ticket.since_ms);
    match (job.webhook_url, ticket.stopping) {
        (_, true) => (elapsed / 10).clamp(500, 3_000),
        (None, false) => (elapsed / 10).clamp(500, 10_000),
        (Some(_), false) => (elapsed / 4).clamp(3_000, 60_000),
    }
}

/// Time to the next try after the `errors`-th unhelpful answer in a row, in milliseconds.
pub(crate) fn backoff_ms(errors: u32, retry_after_ms: u64) -> u64 {
    (500_u64 << errors.min(6))
        .clamp(1_000, 30_000)
        .max(retry_after_ms.min(300_000))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let version = "a".repeat(64);
        let told = |model: &str| target(model).map(|(path, version)| (path, version.map(str::to_owned)));
        let (owned, path) = (Some(version.clone()), "/predictions".to_owned());
        assert_eq!(told(&version).unwrap(), (path.clone(), owned.clone()));
        assert_eq!(told(&format!("me/mine:{version}")).unwrap(), (path, owned));
        assert_eq!(
            told("google/veo-3").unwrap(),
            ("/models/google/veo-3/predictions".into(), None)
        );
        assert_eq!(
            told("deployments/me/fast one").unwrap(),
            ("/deployments/me/fast%20one/predictions".into(), None)
        );
        for wrong in [
            "",
            "veo-3",
            "a/b/c",
            "a/b:1",
            "a//b",
            "../b",
            "deployments/a/b:1",
            "a/b/",
            "deployments/a",
        ] {
            // `deployments/a` reads as owner and name; everything else is no name at all.
            assert_eq!(told(wrong).is_ok(), wrong == "deployments/a", "{wrong}");
        }
    }
}
