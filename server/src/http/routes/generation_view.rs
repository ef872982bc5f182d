//! The public JSON of a generation in its three shapes: the asynchronous object (contract §4), the history record
//! (§4.5) and the synchronous object (§5d). Absent values are `null`, never left out, except in history records.

use salvo::oapi::ToSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::catalog::Registry;
use crate::clock::Micros;
use crate::generation::{Generation, Status};
use crate::outputs::Outputs;

/// A generation as the asynchronous routes show it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "AsyncGeneration"))]
pub struct AsyncGeneration {
    /// Made by the server at submit.
    #[salvo(schema(format = "uuid"))]
    pub generation_id: String,
    /// `queued`, `processing`, `completed`, `failed` or `cancelled`.
    pub status: StatusName,
    /// Jobs that are before this one; 0 is next. `null` unless it is queued.
    #[salvo(schema(required = true))]
    pub queue_position: Option<u64>,
    /// About how long it still takes, in seconds; `null` when it has ended.
    #[salvo(schema(required = true))]
    pub estimated_time: Option<u64>,
    /// Signed URLs of the delivered files; `null` unless it is completed.
    #[salvo(schema(required = true))]
    pub output_urls: Option<Vec<String>>,
    /// Always false: every generation is made anew.
    pub cached: bool,
    /// Why it failed, for people; `null` otherwise.
    #[salvo(schema(required = true))]
    pub error: Option<String>,
    /// `null` while there is nothing to say.
    #[salvo(schema(required = true))]
    pub metadata: Option<Metadata>,
}

/// What else is known of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "GenerationMetadata"))]
pub struct Metadata {
    /// Seconds from the first attempt to the end; `null` until it has ended.
    #[salvo(schema(required = true))]
    pub generation_time: Option<f64>,
    /// Between 0 and 1, when the provider says so.
    #[salvo(schema(required = true))]
    pub progress: Option<f64>,
    /// What was charged in the end; `null` until it has ended.
    #[salvo(schema(required = true))]
    pub credits_used: Option<i64>,
    /// What the operator has given back of that since.
    pub credits_refunded: i64,
    /// Parameters the model does not know; they had no effect.
    pub dropped_parameters: Vec<String>,
    /// Why it failed, for programs; `null` otherwise.
    #[salvo(schema(required = true))]
    pub error_code: Option<String>,
}

/// The statuses of the asynchronous routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[salvo(schema(name = "AsyncStatus"))]
#[allow(missing_docs)]
pub enum StatusName {
    Queued,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl From<Status> for StatusName {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => StatusName::Queued,
            Status::Processing => StatusName::Processing,
            Status::Completed => StatusName::Completed,
            Status::Failed => StatusName::Failed,
            Status::Cancelled => StatusName::Cancelled,
        }
    }
}

/// The statuses of the synchronous routes: what waits is `pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[salvo(schema(name = "SyncStatus"))]
#[allow(missing_docs)]
pub enum SyncStatusName {
    Pending,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl From<Status> for SyncStatusName {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => SyncStatusName::Pending,
            Status::Processing => SyncStatusName::Processing,
            Status::Completed => SyncStatusName::Completed,
            Status::Failed => SyncStatusName::Failed,
            Status::Cancelled => SyncStatusName::Cancelled,
        }
    }
}

/// Signed URLs of the delivered files, in order; `None` unless it is completed.
pub fn output_urls(generation: &Generation, outputs: &Outputs, now: Micros) -> Option<Vec<String>> {
    (generation.status == Status::Completed)
        .then(|| generation.outputs.iter().map(|o| outputs.sign(&o.key, now)).collect())
}

/// Seconds from the first attempt to the end, in milliseconds' precision.
fn generation_seconds(generation: &Generation) -> Option<f64> {
    let ended = generation.completed_at?;
    let began = generation.started_at.unwrap_or(generation.created_at);
    Some((ended.0.saturating_sub(began.0).max(0) / 1000) as f64 / 1000.0)
}

/// About how many seconds it still takes: the model's usual time, once for every batch of jobs that the provider takes
/// at once and that is before this one, less what has passed.
pub fn estimated_seconds(
    generation: &Generation,
    position: Option<u64>,
    registry: &Registry,
    now: Micros,
) -> Option<u64> {
    if generation.status.is_terminal() {
        return None;
    }
    let typical_ms = registry.model(&generation.model_id)?.typical_ms;
    let remaining_ms = match generation.status {
        Status::Queued => {
            let at_once = registry
                .providers
                .get(&generation.provider)
                .map_or(1, |p| p.concurrency.max(1));
            typical_ms.saturating_mul(1 + position.unwrap_or(0) / u64::from(at_once))
        }
        _ => {
            let began = generation.started_at.unwrap_or(generation.created_at);
            typical_ms.saturating_sub(now.after(began).as_millis() as u64)
        }
    };
    Some(remaining_ms.div_ceil(1000).max(1))
}

/// How far it is, between 0 and 1, when that is known.
pub fn progress(generation: &Generation) -> Option<f64> {
    match generation.status {
        Status::Processing => generation.progress_permille.map(|p| f64::from(p) / 1000.0),
        Status::Completed => Some(1.0),
        _ => None,
    }
}

impl AsyncGeneration {
    /// The object of contract §4.
    pub fn of(
        generation: &Generation,
        position: Option<u64>,
        registry: &Registry,
        outputs: &Outputs,
        now: Micros,
    ) -> Self {
        let silent = generation.status == Status::Queued && generation.dropped_parameters.is_empty();
        AsyncGeneration {
            generation_id: generation.id.to_string(),
            status: generation.status.into(),
            queue_position: position,
            estimated_time: estimated_seconds(generation, position, registry, now),
            output_urls: output_urls(generation, outputs, now),
            cached: false,
            error: generation.error.as_ref().map(|e| e.message.clone()),
            metadata: (!silent).then(|| Metadata {
                generation_time: generation_seconds(generation),
                progress: progress(generation),
                credits_used: generation.captured.map(|c| c.0),
                credits_refunded: generation.refunded.0,
                dropped_parameters: generation.dropped_parameters.clone(),
                error_code: generation.error.as_ref().map(|e| e.code.clone()),
            }),
        }
    }
}

/// A record of the history. Members after `parameters` are there only when they have a value.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "HistoryRecord"))]
pub struct HistoryRecord {
    #[salvo(schema(format = "uuid"))]
    generation_id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    model_id: String,
    prompt: String,
    /// The generation's own id: the provider's id is not told.
    #[salvo(schema(format = "uuid"))]
    request_id: String,
    status: StatusName,
    /// UTC, without a zone.
    created_at: String,
    /// JSON as text.
    parameters: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_urls: Option<Vec<String>>,
    /// UTC, without a zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<HistoryMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// UTC, without a zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_at: Option<String>,
}

/// Metadata of a completed history record.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "HistoryMetadata"))]
pub struct HistoryMetadata {
    /// Seconds.
    #[salvo(schema(required = true))]
    generation_time: Option<f64>,
}

/// `2026-11-23T01:09:03.273312`, the contract's second style.
fn naive(time: Micros) -> String {
    time.rfc3339().trim_end_matches("+00:00").to_owned()
}

impl HistoryRecord {
    /// The record of contract §4.5, without what leaked from inside (`cache_key`, the provider's request id).
    pub fn of(generation: &Generation, outputs: &Outputs, now: Micros) -> Self {
        let ended = |status: Status| {
            generation
                .completed_at
                .filter(|_| generation.status == status)
                .map(naive)
        };
        HistoryRecord {
            generation_id: generation.id.to_string(),
            user_id: generation.user_id.to_string(),
            model_id: generation.model_id.clone(),
            prompt: generation.prompt.clone(),
            request_id: generation.id.to_string(),
            status: generation.status.into(),
            created_at: naive(generation.created_at),
            parameters: Value::Object(generation.parameters.clone()).to_string(),
            output_urls: output_urls(generation, outputs, now),
            completed_at: ended(Status::Completed),
            metadata: (generation.status == Status::Completed).then(|| HistoryMetadata {
                generation_time: generation_seconds(generation),
            }),
            error: generation.error.as_ref().map(|e| e.message.clone()),
            failed_at: ended(Status::Failed),
        }
    }
}

/// A generation as the synchronous routes show it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "Generation"))]
pub struct GenerationObject {
    #[salvo(schema(format = "uuid"))]
    id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    #[salvo(schema(required = true, format = "uuid"))]
    project_id: Option<String>,
    /// Always `null`.
    #[salvo(schema(required = true))]
    parent_generation_id: Option<String>,
    /// Always `null`.
    #[salvo(schema(required = true))]
    style_stack_id: Option<String>,
    /// The first of `output_urls`.
    #[salvo(schema(required = true))]
    media_url: Option<String>,
    /// `image`, `video` or `audio`.
    media_type: String,
    prompt: String,
    status: SyncStatusName,
    /// What is held for it: the most it can cost.
    cost: i64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(required = true))]
    model_id: Option<String>,
    #[salvo(schema(required = true))]
    negative_prompt: Option<String>,
    #[salvo(schema(required = true))]
    reference_image_url: Option<String>,
    /// As validated, with defaults.
    #[salvo(schema(value_type = Object))]
    parameters: Map<String, Value>,
    /// Signed; empty unless it is completed.
    output_urls: Vec<String>,
    /// What was charged in the end; `null` until it has ended.
    #[salvo(schema(required = true))]
    credits_used: Option<i64>,
    /// What the operator has given back of that since.
    credits_refunded: i64,
    /// Seconds; `null` until it has ended.
    #[salvo(schema(required = true))]
    processing_time: Option<f64>,
    #[salvo(schema(required = true))]
    error_message: Option<String>,
    is_favorite: bool,
    #[salvo(schema(required = true, format = "date-time"))]
    updated_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    completed_at: Option<String>,
}

impl GenerationObject {
    /// The object of contract §5d.
    pub fn of(generation: &Generation, outputs: &Outputs, now: Micros) -> Self {
        let output_urls = output_urls(generation, outputs, now).unwrap_or_default();
        GenerationObject {
            id: generation.id.to_string(),
            user_id: generation.user_id.to_string(),
            project_id: generation.project_id.map(|p| p.to_string()),
            parent_generation_id: None,
            style_stack_id: None,
            media_url: output_urls.first().cloned(),
            media_type: generation.media_type.as_str().to_owned(),
            prompt: generation.prompt.clone(),
            status: generation.status.into(),
            cost: generation.price.0,
            created_at: generation.created_at.rfc3339(),
            model_id: Some(generation.model_id.clone()),
            negative_prompt: generation.negative_prompt.clone(),
            reference_image_url: generation.reference_image_url.clone(),
            parameters: generation.parameters.clone(),
            output_urls,
            credits_used: generation.captured.map(|c| c.0),
            credits_refunded: generation.refunded.0,
            processing_time: generation_seconds(generation),
            error_message: generation.error.as_ref().map(|e| e.message.clone()),
            is_favorite: generation.is_favorite,
            updated_at: Some(generation.updated_at.rfc3339()),
            completed_at: generation.completed_at.map(Micros::rfc3339),
        }
    }
}
