//! What an operator must see: unknown outcomes, charges without a file, credits that are held for too long.
//!
//! The store finds the candidates; whether a recorded file is there only the storage knows, so candidates are read page by
//! page and their files looked for.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Registry;
use crate::clock::Micros;
use crate::generation::Status;
use crate::id::GenerationId;
use crate::outputs::Outputs;
use crate::store::{Case, Search, Store};

/// Candidates read at once.
const PAGE: u32 = 200;

/// How long a generation of a model that is not in the registry may be open.
const FALLBACK: Duration = Duration::from_secs(3600);

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody knows whether the provider took the submit.
    Unknown,
    /// Charged, and no file is recorded, or one that is recorded is not in the storage.
    ChargedWithoutOutput,
    /// Queued or processing for too long.
    HeldTooLong,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Unknown, Kind::ChargedWithoutOutput, Kind::HeldTooLong];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::ChargedWithoutOutput => "charged_without_output",
            Kind::HeldTooLong => "held_too_long",
        }
    }

    /// Parses the word.
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A generation with a problem.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which problem.
    pub kind: Kind,
    /// The generation.
    pub case: Case,
    /// What is wrong, in a few words.
    pub note: String,
}

/// A part of what was looked for.
#[derive(Debug, Default)]
pub struct Found {
    /// Oldest first.
    pub findings: Vec<Finding>,
    /// Where to go on; `None` when everything was looked at.
    pub next: Option<GenerationId>,
    /// Generations that were looked at.
    pub looked_at: u64,
}

/// Looks for problems.
pub struct Seeker<'a> {
    /// Where the generations are.
    pub store: &'a dyn Store,
    /// Where the files are.
    pub outputs: &'a Outputs,
    /// How long a model may take.
    pub registry: Arc<Registry>,
    /// What is too long; `None`: the deadline of the model.
    pub older_than: Option<Duration>,
    /// The present moment.
    pub now: Micros,
}

impl Seeker<'_> {
    /// Looks after `after` for up to `limit` problems of a kind, at up to `most` candidates; `progress` hears how many it
    /// has looked at.
    ///
    /// # Errors
    /// When the store or the storage of the files does not answer: a file that cannot be looked for is not missing.
    pub async fn look(
        &self,
        kind: Kind,
        after: Option<GenerationId>,
        limit: usize,
        most: u64,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Found> {
        let mut found = Found::default();
        let mut after = after;
        loop {
            let page = self.store.search(self.search(kind), after, PAGE).await?;
            for case in page.items {
                after = Some(case.generation.id);
                found.looked_at += 1;
                if let Some(note) = self.wrong(kind, &case).await? {
                    found.findings.push(Finding { kind, case, note });
                }
                if found.findings.len() >= limit || found.looked_at >= most {
                    found.next = after;
                    return Ok(found);
                }
            }
            progress(found.looked_at);
            if !page.more {
                return Ok(found);
            }
        }
    }

    fn search(&self, kind: Kind) -> Search {
        match kind {
            Kind::Unknown => Search::Unknown,
            Kind::ChargedWithoutOutput => Search::Charged,
            Kind::HeldTooLong => Search::OpenSince(self.now.minus(self.older_than.unwrap_or_else(|| {
                let patience = |model: &str| self.patience(model);
                let models = self.registry.models.iter().map(|model| patience(&model.id));
                models.chain([FALLBACK]).min().unwrap_or(FALLBACK)
            }))),
        }
    }

    /// How long a generation of a model may be open.
    fn patience(&self, model_id: &str) -> Duration {
        let deadline = |model: &Arc<crate::catalog::Model>| Duration::from_millis(model.deadline_ms);
        let of_model = self.registry.model(model_id).map_or(FALLBACK, deadline);
        self.older_than.unwrap_or(of_model)
    }

    /// What is wrong with a candidate, if anything is.
    async fn wrong(&self, kind: Kind, case: &Case) -> Result<Option<String>> {
        let generation = &case.generation;
        Ok(match kind {
            Kind::Unknown => Some(match case.attempt.as_ref().and_then(|a| a.remote_id.as_deref()) {
                Some(id) => format!("the provider's id is {id}"),
                None => "the answer to the paid request was lost".to_owned(),
            }),
            Kind::ChargedWithoutOutput if generation.outputs.is_empty() => Some("no file is recorded".to_owned()),
            Kind::ChargedWithoutOutput => {
                let mut missing = 0;
                for output in &generation.outputs {
                    let is_there = self.outputs.has(&output.key).await;
                    missing += usize::from(!is_there.context("the storage of the outputs does not answer")?);
                }
                (missing > 0).then(|| format!("{missing} of {} files are gone", generation.outputs.len()))
            }
            Kind::HeldTooLong => {
                let began = match (&case.attempt, generation.status) {
                    (Some(attempt), Status::Processing) => attempt.created_at,
                    _ => generation.created_at,
                };
                let is_long = self.now.0 - began.0 > self.patience(&generation.model_id).as_micros() as i64;
                let state = case
                    .attempt
                    .as_ref()
                    .filter(|_| generation.status == Status::Processing);
                let state = state.map_or("not begun", |attempt| attempt.state.as_str());
                is_long.then(|| format!("{} ({state})", generation.status.as_str()))
            }
        })
    }
}
