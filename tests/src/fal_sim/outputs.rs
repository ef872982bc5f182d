//! The JSON a model answers with, and the media behind its URLs.

use std::time::Instant;

use anyhow::Result;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::job::Job;
use super::media::{Format, Spec, render, size_of};
use super::models::Output;

/// What the job's outputs look like, all of them alike.
pub(super) fn spec_of(job: &Job, image_long_edge_px: u16) -> Spec {
    let text = |name: &str, default: &'static str| -> String {
        job.input
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let (default_aspect, default_format) = match job.model.output {
        Output::ImagenImages => ("1:1", "png"),
        Output::FluxImages if job.model.endpoint.ends_with("/text-to-image") => ("1:1", "jpeg"),
        _ => ("16:9", "jpeg"),
    };
    let video = matches!(job.model.output, Output::Video { .. });
    // Videos are small: their pictures are stored uncompressed.
    let long_edge = match text("resolution", "").as_str() {
        _ if video => image_long_edge_px.min(160),
        "2K" => image_long_edge_px.saturating_mul(2),
        _ => image_long_edge_px,
    };
    let (width, height) = size_of(&text("aspect_ratio", default_aspect), long_edge);
    Spec {
        format: if video {
            Format::Mp4
        } else {
            Format::of_name(&text("output_format", default_format))
        },
        width,
        height,
        seconds: job.model.seconds(&job.input),
    }
}

/// The bytes of one output.
///
/// # Errors
/// If the encoder refuses.
pub(super) fn bytes_of(job: &Job, index: u32, image_long_edge_px: u16) -> Result<Bytes> {
    let name = format!("{}/{index}", job.request_id);
    Ok(render(&spec_of(job, image_long_edge_px), &name)?.into())
}

/// The model's answer with so many outputs.
///
/// # Errors
/// If a data URI was asked for (`sync_mode`) and the encoder refuses.
pub(super) fn answer(job: &Job, outputs: u32, image_long_edge_px: u16) -> Result<Value> {
    let spec = spec_of(job, image_long_edge_px);
    let inline = job.input.get("sync_mode") == Some(&Value::Bool(true));
    let mut files = Vec::new();
    for index in 0..outputs {
        let file_name = format!("{index}.{}", spec.format.extension());
        let url = if inline {
            let bytes = bytes_of(job, index, image_long_edge_px)?;
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("data:{};base64,{encoded}", spec.format.content_type())
        } else {
            format!("{}/media/{}/{file_name}", job.base_url, job.request_id)
        };
        let mut file = Map::new();
        file.insert("url".into(), url.into());
        file.insert("content_type".into(), spec.format.content_type().into());
        if spec.format != Format::Mp4 {
            file.insert("width".into(), spec.width.into());
            file.insert("height".into(), spec.height.into());
        }
        if job.model.output != Output::FluxImages {
            file.insert("file_name".into(), file_name.into());
        }
        files.push(Value::Object(file));
    }
    Ok(match job.model.output {
        Output::FluxImages => json!({
            "images": files,
            "timings": { "inference": job.run_time().as_secs_f64() },
            "seed": seed_of(job),
            "has_nsfw_concepts": vec![false; outputs as usize],
            "prompt": job.prompt(),
        }),
        Output::ImagenImages => json!({ "images": files, "description": "" }),
        Output::Video { .. } => match files.pop() {
            Some(video) => json!({ "video": video }),
            None => json!({ "video": null }),
        },
    })
}

/// The seed asked for, or one that, like FAL's own, does not always fit into an `i64`.
fn seed_of(job: &Job) -> Value {
    match job.input.get("seed") {
        Some(seed) if !seed.is_null() => seed.clone(),
        _ => {
            let digest: [u8; 32] = Sha256::digest(job.request_id.as_bytes()).into();
            let mut first = [0; 8];
            first.copy_from_slice(&digest[..8]);
            u64::from_be_bytes(first).into()
        }
    }
}

/// `1200` as `1.2`: FAL's `X-Fal-Billable-Units`.
pub(super) fn units_text(milliunits: u64) -> String {
    let (whole, rest) = (milliunits / 1000, milliunits % 1000);
    if rest == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
    }
}

/// The status object of the queue, with its position where it has one.
pub(super) fn status(job: &Job, now: Instant, position: usize, with_logs: bool, hide_errors: bool) -> Value {
    use super::job::{Outcome, Phase};

    let phase = job.phase(now);
    let url = job.response_url();
    let mut body = json!({
        "status": phase.name(),
        "request_id": job.request_id,
        "response_url": url,
        "status_url": format!("{url}/status"),
        "cancel_url": format!("{url}/cancel"),
    });
    let logs = if with_logs {
        json!([{
            "message": format!("Running {}", job.model.endpoint),
            "timestamp": timestamp(),
            "level": "INFO",
            "source": "USER",
        }])
    } else {
        Value::Null
    };
    match phase {
        Phase::InQueue => body["queue_position"] = position.into(),
        Phase::InProgress => body["logs"] = logs,
        Phase::Completed => {
            body["logs"] = logs;
            body["metrics"] = json!({ "inference_time": job.run_time().as_secs_f64() });
            if let Some(Outcome::Fail(failure)) = job.ended(now)
                && !hide_errors
            {
                body["error"] = failure.message.clone().into();
                body["error_type"] = failure.error_type.clone().into();
            }
        }
    }
    body
}

/// The present moment as FAL writes it, RFC 3339 with an offset.
fn timestamp() -> String {
    rfc3339(time::OffsetDateTime::now_utc())
}

pub(super) fn rfc3339(moment: time::OffsetDateTime) -> String {
    moment
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::units_text;

    #[test]
    fn units_are_written_without_idle_digits() {
        assert_eq!(
            [0, 1000, 1200, 1250, 12_345].map(units_text),
            ["0", "1", "1.2", "1.25", "12.345"]
        );
    }
}
