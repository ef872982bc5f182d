//! Reads Replicate's predictions and webhooks.

use velro_plugin::{Map, Outcome, Output, Value};

/// What a prediction says about itself.
pub(crate) enum Verdict {
    /// Not finished; unknown statuses are read as this, because they are no verdict.
    Going,
    Succeeded,
    /// Replicate's text about why.
    Failed(String),
    /// By us, by its deadline or by somebody with the account.
    Canceled,
    /// Its deadline passed before it started; never billed.
    Aborted,
}

/// Replicate's id of a prediction, if it looks like one: it becomes a part of URLs.
pub(crate) fn id(prediction: &Value) -> Option<String> {
    let id = prediction["id"].as_str()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

pub(crate) fn verdict(prediction: &Value) -> Verdict {
    match prediction["status"].as_str() {
        Some("succeeded") => Verdict::Succeeded,
        Some("failed") => Verdict::Failed(prediction["error"].as_str().unwrap_or_default().to_owned()),
        Some("canceled") => Verdict::Canceled,
        Some("aborted") => Verdict::Aborted,
        _ => Verdict::Going,
    }
}

/// What the model delivered; `None` when nothing in the output is a file.
pub(crate) fn outcome(prediction: &Value) -> Option<Outcome> {
    let mut outputs = Vec::new();
    files(&prediction["output"], None, 0, &mut outputs);
    let mut meta = Map::new();
    for (theirs, ours) in [("predict_time", "predict_time_ms"), ("total_time", "total_time_ms")] {
        if let Some(ms) = millis(&prediction["metrics"][theirs]) {
            meta.insert(ours.into(), ms.into());
        }
    }
    (!outputs.is_empty()).then_some(Outcome {
        outputs,
        billed: None,
        meta,
    })
}

/// An output is a URL, a list of them, or an object with some: whatever the model's author chose.
fn files(value: &Value, name: Option<&str>, depth: u32, found: &mut Vec<Output>) {
    match value {
        Value::String(url) if is_file(url) => {
            let mut output = Output::url(kind(url), url.as_str());
            if let Some(name) = name {
                output.meta.insert("name".into(), name.into());
            }
            found.push(output);
        }
        Value::Array(list) if depth < 3 => list.iter().for_each(|one| files(one, name, depth + 1, found)),
        Value::Object(fields) if depth < 3 => fields
            .iter()
            .for_each(|(name, one)| files(one, Some(name.as_str()), depth + 1, found)),
        _ => {}
    }
}

fn is_file(text: &str) -> bool {
    ["https://", "http://", "data:"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// `image`, `video` or `audio` where the URL shows it, else `file`: the host looks at the bytes, and refuses a file
/// that is not what we called it.
fn kind(url: &str) -> &'static str {
    if let Some(data) = url.strip_prefix("data:") {
        return match data.split('/').next() {
            Some("image") => "image",
            Some("video") => "video",
            Some("audio") => "audio",
            _ => "file",
        };
    }
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let extension = path
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("png" | "jpg" | "jpeg" | "webp" | "gif" | "avif") => "image",
        Some("mp4" | "webm" | "mov") => "video",
        Some("mp3" | "wav" | "flac" | "aac" | "m4a") => "audio",
        _ => "file",
    }
}

/// Seconds as whole milliseconds: no float leaves this crate.
fn millis(seconds: &Value) -> Option<u64> {
    let seconds = seconds.as_f64().filter(|s| (0.0..1e9).contains(s))?;
    Some((seconds * 1_000.0).round() as u64)
}

/// Progress in thousandths, from the last bar that `tqdm` drew into the log: ` 45%|####`.
pub(crate) fn permille(prediction: &Value) -> Option<u16> {
    let logs = prediction["logs"].as_str()?;
    let tail = &logs[logs.ceil_char_boundary(logs.len().saturating_sub(4_096))..];
    let before = &tail[..tail.rfind("%|")?];
    let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
    let percent: u16 = before[before.len() - digits..].parse().ok()?;
    (percent <= 100).then_some(percent * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn progress_is_the_last_bar() {
        let told = |logs: &str| permille(&json!({"logs": logs}));
        assert_eq!(told("  0%|  | 0/28\r 45%|####5     | 13/28 [00:01<00:01]\n"), Some(450));
        assert_eq!(told("100%|##########|"), Some(1_000));
        assert_eq!(told("999%|"), None);
        assert_eq!(told("%|"), None);
        assert_eq!(told("half of 50% done"), None);
        assert_eq!(told(&format!(" 10%|{}", "\u{e9}".repeat(5_000))), None);
        assert_eq!(permille(&json!({"logs": null})), None);
    }

    #[test]
    fn outputs_of_every_shape() {
        let told = |output: Value| {
            let outputs = outcome(&json!({ "output": output }))
                .map(|o| o.outputs)
                .unwrap_or_default();
            outputs.iter().map(|o| o.kind.clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(json!("https://r.example/a.PNG?x=.mp4")), ["image"]);
        assert_eq!(
            told(json!(["https://r.example/a.mp4", "data:audio/wav;base64,"])),
            ["video", "audio"]
        );
        assert_eq!(told(json!({"mask": "https://r.example/a", "log": "done"})), ["file"]);
        assert_eq!(told(json!("some text")), Vec::<String>::new());
        assert_eq!(
            told(json!([[[["https://r.example/too-deep.png"]]]])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn times_are_whole_milliseconds() {
        assert_eq!(millis(&json!(1.2345)), Some(1_235));
        assert_eq!(millis(&json!(-1)), None);
        assert_eq!(millis(&json!("1")), None);
    }
}
