//! Reads ComfyUI's answers.

use std::cmp::Ordering;
use velro_plugin::{BaseUrl, Map, Outcome, Output, Value, escape};

use crate::config::Workflow;

/// ComfyUI's id of a job, if it looks like one: it becomes a part of URLs.
pub(crate) fn prompt_id(body: &Value) -> Option<String> {
    let id = body["prompt_id"].as_str()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// The name of an uploaded image, as `LoadImage` wants it.
pub(crate) fn stored_name(body: &Value) -> Option<String> {
    let plain =
        |text: &str| text.len() <= 200 && !text.contains(['\\', '\0']) && !text.split('/').any(|part| part == "..");
    let name = body["name"].as_str().filter(|name| !name.is_empty() && plain(name))?;
    match body["subfolder"].as_str().unwrap_or_default() {
        "" => Some(name.to_owned()),
        folder => plain(folder).then(|| format!("{folder}/{name}")),
    }
}

/// Where a job is in the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Running,
    /// So many are before it.
    Waiting(u32),
    Absent,
}

/// Finds a job in `/queue`; `None` when that is not what was answered.
pub(crate) fn place(body: &Value, id: &str) -> Option<Place> {
    let (running, waiting) = (body["queue_running"].as_array()?, body["queue_pending"].as_array()?);
    if running.iter().any(|job| job[1] == id) {
        return Some(Place::Running);
    }
    let Some(ours) = waiting.iter().find(|job| job[1] == id) else {
        return Some(Place::Absent);
    };
    // A heap is not in order: the numbers are.
    let number = |job: &Value| job[0].as_f64().unwrap_or(0.0);
    let before = waiting
        .iter()
        .filter(|job| number(job).total_cmp(&number(ours)) == Ordering::Less);
    Some(Place::Waiting(
        u32::try_from(before.count() + running.len()).unwrap_or(u32::MAX),
    ))
}

/// How a job ended.
pub(crate) enum Verdict {
    Delivered(Outcome),
    Nothing,
    Interrupted,
    /// Exception type and message of the node that failed.
    Failed {
        exception: String,
        message: String,
    },
}

/// How a job ended, from `/history/{id}`. `None` for a job that has not; `Err` when that is not what was answered.
pub(crate) fn verdict(
    body: &Value,
    id: &str,
    base: &BaseUrl,
    workflow: Option<&Workflow>,
) -> Result<Option<Verdict>, ()> {
    let Some(entry) = body.as_object().ok_or(())?.get(id) else {
        return Ok(None);
    };
    let status = &entry["status"];
    let messages = status["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |name: &str| messages.iter().find(|message| message[0] == name);
    if told("execution_interrupted").is_some() {
        return Ok(Some(Verdict::Interrupted));
    }
    if let Some(message) = told("execution_error") {
        let text = |field: &str| message[1][field].as_str().unwrap_or_default().to_owned();
        return Ok(Some(Verdict::Failed {
            exception: text("exception_type"),
            message: text("exception_message"),
        }));
    }
    if status["status_str"] == "error" {
        return Ok(Some(Verdict::Failed {
            exception: String::new(),
            message: String::new(),
        }));
    }
    let outputs = files(&entry["outputs"], base, workflow.map_or(&[], |w| w.outputs.as_slice()));
    Ok(Some(match outputs.is_empty() {
        true => Verdict::Nothing,
        false => Verdict::Delivered(Outcome {
            outputs,
            billed: None,
            meta: Map::new(),
        }),
    }))
}

/// The files of the nodes, in the order of the nodes' numbers. Previews count only when nothing else was saved.
fn files(outputs: &Value, base: &BaseUrl, nodes: &[String]) -> Vec<Output> {
    let mut listed: Vec<(&String, &Value)> = outputs.as_object().map(|o| o.iter().collect()).unwrap_or_default();
    listed.retain(|(id, _)| nodes.is_empty() || nodes.contains(id));
    listed.sort_by_key(|(id, _)| (id.parse::<u64>().unwrap_or(u64::MAX), (*id).clone()));
    let (mut saved, mut previews) = (Vec::new(), Vec::new());
    for (id, kinds) in listed {
        // `images`, `gifs`, `audio`, ...: nodes call their lists as they like.
        let lists = kinds
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, list)| list.as_array());
        for file in lists.flatten() {
            let Some(name) = file["filename"].as_str().filter(|name| !name.is_empty()) else {
                continue;
            };
            let folder = file["subfolder"].as_str().unwrap_or_default();
            let place = file["type"].as_str().unwrap_or("output");
            let (file, path, what) = (escape(name), escape(folder), escape(place));
            let url = base.join(&format!("/view?filename={file}&subfolder={path}&type={what}"));
            let mut output = Output::url(kind(name), url);
            output.meta.insert("node".into(), id.as_str().into());
            output.meta.insert("file_name".into(), name.into());
            if place == "temp" { &mut previews } else { &mut saved }.push(output);
        }
    }
    if saved.is_empty() { previews } else { saved }
}

/// `image`, `video` or `audio` where the name shows it, else `file`: the host looks at the bytes, and refuses a file that
/// is not what we called it.
fn kind(name: &str) -> &'static str {
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("png" | "jpg" | "jpeg" | "webp" | "gif" | "avif") => "image",
        Some("mp4" | "webm" | "mov") => "video",
        Some("mp3" | "wav" | "flac" | "aac" | "m4a") => "audio",
        _ => "file",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_in_the_queue() {
        let queue =
            json!({"queue_running": [[3, "run", {}]], "queue_pending": [[5, "b", {}], [9, "c", {}], [4.5, "a", {}]]});
        let told = |id: &str| place(&queue, id).unwrap();
        assert_eq!(told("run"), Place::Running);
        assert_eq!(told("a"), Place::Waiting(1));
        assert_eq!(told("c"), Place::Waiting(3));
        assert_eq!(told("x"), Place::Absent);
        assert_eq!(place(&json!({}), "x"), None);
    }

    #[test]
    fn names_of_uploads() {
        assert_eq!(
            stored_name(&json!({"name": "a.png", "subfolder": ""})).unwrap(),
            "a.png"
        );
        assert_eq!(
            stored_name(&json!({"name": "a.png", "subfolder": "x"})).unwrap(),
            "x/a.png"
        );
        assert_eq!(stored_name(&json!({"name": "../a.png"})), None);
        assert_eq!(stored_name(&json!({"name": ""})), None);
    }
}
