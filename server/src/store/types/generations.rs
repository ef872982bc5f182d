//! Generations as the customer sees them: submit, list, cancel, delete.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::clock::Micros;
use crate::generation::{Event, Generation, MediaType, PriceBasis, Route, Status, StoredOutput};
use crate::id::{ApiKeyId, AttemptId, GenerationId, ProjectId, UserId};
use crate::ledger::Credits;

/// A part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The part asked for.
    pub items: Vec<T>,
    /// How many match in all.
    pub total: u64,
}

/// A submit's idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// As the client sent it, without quotes.
    pub key: String,
    /// SHA-256 of what was asked, hex.
    pub fingerprint: String,
}

/// To submit a generation: everything validated and priced already.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewGeneration {
    pub id: GenerationId,
    pub user_id: UserId,
    pub project_id: Option<ProjectId>,
    pub model_id: String,
    pub provider: String,
    pub media_type: MediaType,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    pub reference_image_url: Option<String>,
    pub parameters: Map<String, Value>,
    pub dropped_parameters: Vec<String>,
    pub provider_model: String,
    pub provider_input: String,
    pub fallbacks: Vec<Route>,
    pub price: Credits,
    pub price_basis: PriceBasis,
    pub idempotency: Option<IdempotencyKey>,
    /// The key it was asked with; its cap counts the price.
    pub api_key_id: Option<ApiKeyId>,
    /// The W3C `traceparent` of the request.
    pub trace_context: Option<String>,
    pub now: Micros,
}

/// What became of a submit.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Stored, held, visible.
    New {
        /// As stored.
        generation: Box<Generation>,
        /// The `queued` event.
        event: Event,
        /// Available balance after the hold.
        available: Credits,
    },
    /// The idempotency key had been used for the same request.
    Replayed(Box<Generation>),
    /// The idempotency key had been used for another request; nothing was changed.
    KeyReused,
    /// Not enough credits; nothing was changed.
    Insufficient {
        /// What it costs.
        required: Credits,
        /// What there is.
        available: Credits,
    },
    /// The API key's spending cap does not allow it; nothing was changed.
    CapReached {
        /// What it costs.
        required: Credits,
        /// What the key may still spend.
        remaining: Credits,
    },
    /// The API key was revoked or has expired; nothing was changed.
    KeyEnded,
    /// The account is suspended; nothing was changed.
    Suspended,
    /// The project is not the user's; nothing was changed.
    NoSuchProject,
    /// The user does not exist (any more); nothing was changed.
    NoSuchUser,
}

/// Which generations.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct GenerationFilter {
    pub project_id: Option<ProjectId>,
    pub status: Option<Status>,
    pub skip: u64,
    pub limit: u32,
}

/// Counts over a user's generations.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct GenerationStats {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Queued and processing.
    pub unfinished: u64,
    pub favorites: u64,
    /// Captured credits.
    pub captured: Credits,
    pub by_media_type: BTreeMap<String, u64>,
    pub by_model: BTreeMap<String, u64>,
}

/// What became of a delete.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// Gone from every list; these storage keys can be removed.
    Done(Vec<StoredOutput>),
    /// It still runs; cancel it first.
    Unfinished(Status),
    /// There is none.
    Missing,
}

/// What became of a cancel.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// Cancelled and released now; `events` to publish.
    Now {
        /// As stored.
        generation: Box<Generation>,
        /// The `cancelled` event.
        events: Vec<Event>,
    },
    /// The provider has it; the worker will ask it to stop.
    Requested {
        /// As stored.
        generation: Box<Generation>,
        /// The attempt to wake.
        attempt: AttemptId,
    },
    /// It was terminal before.
    Already(Box<Generation>),
}
