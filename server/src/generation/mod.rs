//! What a customer asked for, and the submissions made for it. Pure: states, transitions, events.
//!
//! A [`Generation`] is what the customer sees; an [`Attempt`] is one submission to a provider:
//!
//! ```text
//! prepared -> sending -> accepted -> finished
//!                    \-> rejected   the provider said no: nothing was bought, another try is safe
//!                    \-> unknown    we do not know: never retried, never refunded, never failed over by itself
//! ```
//!
//! `sending` is stored before the paid request leaves. Whatever ends in `sending` without an answer becomes `unknown`.

mod attempt;
mod event;

pub use attempt::{Attempt, AttemptState, Pending, StoredRequest};
pub use event::{Event, EventKind};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::id::{ApiKeyId, GenerationId, ProjectId, UserId};
use crate::ledger::Credits;

/// The contract's statuses of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted and paid for by a hold; waits for its turn.
    Queued,
    /// A provider works on it, or it is not known whether one does.
    Processing,
    /// Delivered and charged.
    Completed,
    /// Not delivered and not charged.
    Failed,
    /// Stopped by the user and not charged.
    Cancelled,
}

impl Status {
    /// All of them, for filters and their error messages.
    pub const ALL: [Status; 5] = [
        Status::Queued,
        Status::Processing,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// True when nothing can change any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Processing => "processing",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// What a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum MediaType {
    Image,
    Video,
    Audio,
}

impl MediaType {
    /// All of them.
    pub const ALL: [MediaType; 3] = [MediaType::Image, MediaType::Video, MediaType::Audio];

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::Image => "image",
            MediaType::Video => "video",
            MediaType::Audio => "audio",
        }
    }

    /// Parses the wire form, whatever its case.
    pub fn parse(text: &str) -> Option<MediaType> {
        MediaType::ALL
            .into_iter()
            .find(|t| t.as_str().eq_ignore_ascii_case(text))
    }
}

/// A generation as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Made by the server at submit.
    pub id: GenerationId,
    /// Who asked and pays.
    pub user_id: UserId,
    /// The folder it lies in.
    pub project_id: Option<ProjectId>,
    /// The public model id.
    pub model_id: String,
    /// The provider entry that serves it.
    pub provider: String,
    /// What comes out.
    pub media_type: MediaType,
    /// As given, trimmed.
    pub prompt: String,
    /// As given.
    pub negative_prompt: Option<String>,
    /// As given, or our own URL of an uploaded file.
    pub reference_image_url: Option<String>,
    /// The client's validated parameters, defaults applied.
    pub parameters: Map<String, Value>,
    /// Names the model does not know; they had no effect.
    pub dropped_parameters: Vec<String>,
    /// The provider's own name of the model.
    pub provider_model: String,
    /// The provider's input as canonical JSON text: what [`velro_plugin::Job::params`] shows.
    pub provider_input: String,
    /// Where it goes when the present provider does not do it, in order of preference.
    pub fallbacks: Vec<Route>,
    /// The hold: what it costs when everything is delivered.
    pub price: Credits,
    /// How the price came about, as stored at submit.
    pub price_basis: PriceBasis,
    /// Where it stands.
    pub status: Status,
    /// The user wants it stopped and the provider has the last word.
    pub cancel_requested: bool,
    /// Why it failed, for the customer.
    pub error: Option<PublicError>,
    /// What was charged in the end; `None` while it runs.
    pub captured: Option<Credits>,
    /// What an operator has given back of it since. Only reads fill it in, nothing that is decided with it is read here.
    pub refunded: Credits,
    /// Delivered files, in order.
    pub outputs: Vec<StoredOutput>,
    /// Thousandths done, when the provider says so.
    pub progress_permille: Option<u16>,
    /// Marked by the user.
    pub is_favorite: bool,
    /// Submit.
    pub created_at: Micros,
    /// Last change.
    pub updated_at: Micros,
    /// First attempt.
    pub started_at: Option<Micros>,
    /// Terminal transition.
    pub completed_at: Option<Micros>,
    /// The key of the program that asked, and whose spending cap counts it.
    pub api_key_id: Option<ApiKeyId>,
    /// The W3C `traceparent` of the request it came with, so that its work belongs to the same trace.
    pub trace_context: Option<String>,
}

/// A provider that can do a generation, with what it would be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Name of the provider entry.
    pub provider: String,
    /// The provider's own name of the model.
    pub provider_model: String,
    /// The provider's input as canonical JSON text.
    pub provider_input: String,
}

/// How a price came about: `base` times the factors, with the count that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PriceBasis {
    /// Credits before factors.
    pub base: Credits,
    /// Declared multipliers and their values, in order.
    pub factors: Vec<(String, i64)>,
    /// How many outputs were asked for, when the price counts them.
    pub count: Option<u32>,
}

impl PriceBasis {
    /// What `delivered` outputs are worth when `price` was held for `count` of them: all of it when nothing is
    /// counted or nothing is missing, else the share, rounded down so that a person never pays for what is missing.
    pub fn worth(&self, price: Credits, delivered: u32) -> Credits {
        match self.count {
            Some(count) if count > 0 && delivered < count => {
                let share = i128::from(price.0) * i128::from(delivered) / i128::from(count);
                // Less than the price, which fits.
                Credits(i64::try_from(share).unwrap_or(price.0))
            }
            _ => price,
        }
    }
}

/// A failure as the customer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicError {
    /// Short and stable, for programs.
    pub code: String,
    /// One sentence, for people.
    pub message: String,
}

/// A delivered file in our own storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// Position among the outputs.
    pub index: u32,
    /// Key in the output storage, for example `<generation>/0.png`.
    pub key: String,
    /// Sniffed, not believed.
    pub content_type: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// Pixels, when known.
    pub width: Option<u32>,
    /// Pixels, when known.
    pub height: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_outputs_are_not_paid_for() {
        let basis = PriceBasis {
            base: Credits(5),
            factors: vec![("num_images".into(), 4)],
            count: Some(4),
        };
        assert_eq!(basis.worth(Credits(20), 4), Credits(20));
        assert_eq!(basis.worth(Credits(20), 3), Credits(15));
        assert_eq!(basis.worth(Credits(20), 9), Credits(20));
        assert_eq!(basis.worth(Credits(7), 1), Credits(1));
        assert_eq!(PriceBasis::default().worth(Credits(7), 1), Credits(7));
    }
}
