//! `/_sim/...`: the simulator's own interface for tests in other processes. See the module doc of [`super`].

use std::sync::Arc;

use salvo::Request;
use salvo::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faults::Rule;
use super::handle::SimHandle;
use super::reply::Reply;
use super::state::Inner;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsRequest {
    /// First forget all rules.
    #[serde(default)]
    clear: bool,
    #[serde(default)]
    rules: Vec<Rule>,
    /// Only the settings named change.
    #[serde(default)]
    settings: Map<String, Value>,
    /// Refuse connections, existing ones included, for so long.
    refuse_for_ms: Option<u64>,
}

pub(super) async fn handle(inner: &Arc<Inner>, path: &[&str], req: &mut Request) -> Reply {
    let handle = SimHandle(Arc::clone(inner));
    let method = req.method().clone();
    match path {
        ["requests"] if method == Method::GET => Reply::json(
            200,
            &json!({
                "requests": handle.requests(),
                "refused": handle.refusals(),
                "bought_twice": handle.bought_twice(),
            }),
        ),
        ["faults"] if method == Method::GET => {
            Reply::json(200, &json!({ "rules": handle.rules(), "settings": handle.settings() }))
        }
        ["faults"] if method == Method::DELETE => {
            handle.clear_faults();
            Reply::json(200, &json!({}))
        }
        ["faults"] if method == Method::POST => match change(&handle, req).await {
            Ok(reply) => reply,
            Err(error) => Reply::detail(400, &format!("fal-sim: {error:#}")),
        },
        ["jobs", request_id, step] if method == Method::POST => {
            let done = match *step {
                "start" => handle.start_job(request_id),
                "finish" => handle.finish_job(request_id),
                "fail" => {
                    let error_type: Option<String> = req.query("type");
                    let error_type = error_type.as_deref().unwrap_or("internal_server_error");
                    handle.fail_job(request_id, error_type)
                }
                _ => Err(anyhow::anyhow!("the steps are start, finish, fail")),
            };
            match done {
                Ok(()) => Reply::json(200, &json!({})),
                Err(error) => Reply::detail(400, &format!("fal-sim: {error:#}")),
            }
        }
        _ => Reply::detail(404, "fal-sim: the paths are requests, faults, jobs/{id}/{step}"),
    }
}

async fn change(handle: &SimHandle, req: &mut Request) -> anyhow::Result<Reply> {
    let body = req.payload().await?;
    let change: FaultsRequest = serde_json::from_slice(body)?;
    // Everything is checked before anything changes.
    let mut settings = serde_json::to_value(handle.settings())?;
    if let Some(settings) = settings.as_object_mut() {
        settings.extend(change.settings);
    }
    let settings = serde_json::from_value(settings)?;
    if change.clear {
        handle.clear_faults();
    }
    handle.change_settings(|current| *current = settings);
    for rule in change.rules {
        handle.add_rule(rule);
    }
    if let Some(ms) = change.refuse_for_ms {
        let handle = handle.clone();
        let stop = handle.0.stop.clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            // Time for this very answer to get out before its connection is cut.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            handle.refuse_connections().await;
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            handle.accept_connections().await;
        }));
    }
    Ok(Reply::json(
        200,
        &json!({ "rules": handle.rules(), "settings": handle.settings() }),
    ))
}
