//! From a client's call to a stored, held and queued generation, and from a wish to stop to what became of it.
//!
//! The one way in for every surface: the REST routes today, compatible surfaces later. Validation and price come from
//! the in-memory registry, so a submit costs one round trip to the database. What is enqueued after the commit may be
//! lost with the process: the store is the truth, and the worker rebuilds the queue from it.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug_span};

use crate::catalog::{ClientCall, Model, ParamFault, Registry, Shelf, ValidCall};
use crate::clock;
use crate::failpoint;
use crate::generation::{Event, Generation, Route, Status};
use crate::id::{ApiKeyId, AttemptId, GenerationId, ProjectId, UserId};
use crate::ledger::Credits;
use crate::pause::{Mode, Pauses};
use crate::provider::routes::Obstacle;
use crate::provider::{ProviderShelf, routes};
use crate::queue::live::{Live, Seen, Watch};
use crate::queue::{Job, Queue};
use crate::store::{Cancelled, IdempotencyKey, NewGeneration, Store, StoreError, Submitted};
use crate::telemetry::{Metrics, trace};

/// How long a cancel waits for the provider's word before it answers that the wish is noted.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// How often it looks at the store meanwhile: the worker may be another process whose word does not arrive.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The intake and what it works with.
pub struct Intake {
    /// Truth.
    pub store: Arc<dyn Store>,
    /// Models and prices.
    pub shelf: Arc<Shelf>,
    /// Whether a provider is ready.
    pub providers: Arc<ProviderShelf>,
    /// Whose turn it is.
    pub queue: Arc<dyn Queue>,
    /// Watchers and nudges.
    pub live: Arc<Live>,
    /// What operators have stopped.
    pub pauses: Arc<Pauses>,
    /// Counts submits by outcome.
    pub metrics: Arc<Metrics>,
}

/// A client's call with its owner.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Request<'a> {
    pub user_id: UserId,
    pub project_id: Option<ProjectId>,
    pub model_id: &'a str,
    pub call: ClientCall<'a>,
    pub idempotency: Option<IdempotencyKey>,
    /// The API key it came with; its cap counts the price.
    pub api_key_id: Option<ApiKeyId>,
}

/// Why a call was not accepted. Nothing was changed.
#[derive(Debug)]
pub enum Refusal {
    /// The registry has no such model; the ids it has.
    UnknownModel(Vec<String>),
    /// Switched off, or its provider is not ready: the reason, fit for clients.
    ModelUnavailable(String),
    /// An operator lets nothing new in, to be tried again later: what is closed, fit for clients.
    Draining(&'static str),
    /// The call breaks rules of the model.
    Invalid(Vec<ParamFault>),
    /// The idempotency key belongs to another request.
    KeyReused,
    /// Too little.
    #[allow(missing_docs)]
    Insufficient { required: Credits, available: Credits },
    /// The API key may not spend that much any more.
    #[allow(missing_docs)]
    CapReached { required: Credits, remaining: Credits },
    /// The API key was revoked or has expired.
    KeyEnded,
    /// The account is suspended.
    Suspended,
    /// Not the user's.
    NoSuchProject,
    /// The account is gone.
    NoSuchUser,
    /// The database.
    Store(StoreError),
}

/// An accepted call.
#[derive(Debug)]
pub struct Accepted {
    /// As stored.
    pub generation: Box<Generation>,
    /// The idempotency key had been used for the same request; nothing was bought again.
    pub replayed: bool,
    /// Jobs ahead; `None` when it does not wait.
    pub position: Option<u64>,
    /// How long it usually takes, in seconds.
    pub estimated_seconds: u64,
}

/// What became of a wish to stop.
#[derive(Debug)]
pub enum Stopped {
    /// Cancelled; nothing was charged.
    Cancelled(Box<Generation>),
    /// The provider has been asked and has not answered yet.
    Asked(Box<Generation>),
    /// It had ended before, or ended first.
    Ended(Box<Generation>),
}

impl Intake {
    /// The price of a call and what would be sent, and to whom first, without submitting it.
    pub fn quote(&self, model_id: &str, call: &ClientCall<'_>) -> Result<(Arc<Model>, ValidCall), Refusal> {
        self.prepare(model_id, call).map(|(model, valid, _)| (model, valid))
    }

    fn prepare(&self, model_id: &str, call: &ClientCall<'_>) -> Result<(Arc<Model>, ValidCall, Obstacle), Refusal> {
        let registry = self.shelf.get();
        let model = self.usable(&registry, model_id)?;
        let mut valid = model.check(call).map_err(Refusal::Invalid)?;
        let first = Route {
            provider: valid.provider,
            provider_model: valid.provider_model,
            provider_input: valid.provider_input,
        };
        let ways = std::iter::once(first).chain(valid.fallbacks).collect();
        let arranged = routes::arrange(&registry, &self.providers, &self.pauses, ways, clock::now());
        let arranged = arranged.ok_or_else(not_configured)?;
        let mut ways = arranged.routes.into_iter();
        let first = ways.next().ok_or_else(not_configured)?;
        (valid.provider, valid.provider_model) = (first.provider, first.provider_model);
        valid.provider_input = first.provider_input;
        valid.fallbacks = ways.collect();
        Ok((model, valid, arranged.obstacle))
    }

    /// Accepts a call: exactly one generation and one hold, or a refusal that changed nothing.
    pub async fn submit(&self, request: Request<'_>) -> Result<Accepted, Refusal> {
        let outcome = self.accept(request).await;
        self.metrics.submit(match &outcome {
            Ok(Accepted { replayed: true, .. }) => "replayed",
            Ok(_) => "accepted",
            Err(Refusal::Insufficient { .. } | Refusal::CapReached { .. }) => "insufficient_credits",
            Err(Refusal::ModelUnavailable(_) | Refusal::Draining(_)) => "unavailable",
            Err(Refusal::Store(_)) => "error",
            Err(_) => "invalid",
        });
        outcome
    }

    async fn accept(&self, request: Request<'_>) -> Result<Accepted, Refusal> {
        let began = Instant::now();
        let check = || self.prepare(request.model_id, &request.call);
        let (model, valid, obstacle) = debug_span!("check").in_scope(check)?;
        let checked = Instant::now();
        if self.pauses.queue() == Mode::Draining {
            return Err(Refusal::Draining("this server"));
        }
        if obstacle == Obstacle::Draining {
            return Err(Refusal::Draining("the provider of this model"));
        }
        let new = NewGeneration {
            id: GenerationId::new(),
            user_id: request.user_id,
            project_id: request.project_id,
            model_id: model.id.clone(),
            provider: valid.provider,
            media_type: model.media_type,
            prompt: valid.prompt,
            negative_prompt: valid.negative_prompt,
            reference_image_url: valid.reference_image_url,
            parameters: valid.parameters,
            dropped_parameters: valid.dropped,
            provider_model: valid.provider_model,
            provider_input: valid.provider_input,
            fallbacks: valid.fallbacks,
            price: valid.price,
            price_basis: valid.price_basis,
            idempotency: request.idempotency,
            api_key_id: request.api_key_id,
            trace_context: trace::current(),
            now: clock::now(),
        };
        let estimated_seconds = model.typical_ms.div_ceil(1000);
        let hold = self.store.submit(new).instrument(debug_span!("hold"));
        let generation = match hold.await.map_err(Refusal::Store)? {
            Submitted::New { generation, event, .. } => {
                failpoint::at("intake::stored");
                let held = Instant::now();
                self.live.publish(&[event]);
                self.enqueue(&generation).instrument(debug_span!("enqueue")).await;
                self.metrics.submit_stage("check", checked - began);
                self.metrics.submit_stage("hold", held - checked);
                self.metrics.submit_stage("enqueue", held.elapsed());
                generation
            }
            Submitted::Replayed(generation) => {
                // Whoever sent it first may have gone away between the commit and the queue.
                if generation.status == Status::Queued {
                    self.enqueue(&generation).await;
                }
                let position = self.position(&generation).await;
                return Ok(Accepted {
                    generation,
                    replayed: true,
                    position,
                    estimated_seconds,
                });
            }
            Submitted::KeyReused => return Err(Refusal::KeyReused),
            Submitted::Insufficient { required, available } => {
                return Err(Refusal::Insufficient { required, available });
            }
            Submitted::CapReached { required, remaining } => {
                return Err(Refusal::CapReached { required, remaining });
            }
            Submitted::KeyEnded => return Err(Refusal::KeyEnded),
            Submitted::Suspended => return Err(Refusal::Suspended),
            Submitted::NoSuchProject => return Err(Refusal::NoSuchProject),
            Submitted::NoSuchUser => return Err(Refusal::NoSuchUser),
        };
        let position = self.position(&generation).await;
        Ok(Accepted {
            generation,
            replayed: false,
            position,
            estimated_seconds,
        })
    }

    /// Jobs ahead of a waiting generation; `None` when it does not wait or the queue cannot say.
    pub async fn position(&self, generation: &Generation) -> Option<u64> {
        if generation.status != Status::Queued {
            return None;
        }
        let position = self.queue.position(&generation.provider, generation.id).await;
        position.ok().flatten()
    }

    /// Stops a generation if it can be stopped. Cancelling and completing race, exactly one wins.
    pub async fn cancel(&self, owner: UserId, id: GenerationId) -> Result<Option<Stopped>, StoreError> {
        // Watch first: the end may come between the wish and the wait.
        let mut watch = self.live.watch(id);
        match self.store.cancel(owner, id, clock::now()).await? {
            None => Ok(None),
            Some(Cancelled::Already(generation)) => Ok(Some(Stopped::Ended(generation))),
            Some(Cancelled::Now { generation, events }) => {
                self.cancelled(&generation, &events).await;
                Ok(Some(Stopped::Cancelled(generation)))
            }
            Some(Cancelled::Requested { generation, attempt }) => {
                self.live.nudge(attempt);
                match timeout(CANCEL_PATIENCE, self.end_of(owner, id, &mut watch)).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(Some(Stopped::Asked(generation))),
                }
            }
        }
    }

    /// The same without waiting for the provider's answer.
    pub async fn wish_to_cancel(&self, owner: UserId, id: GenerationId) -> Result<(), StoreError> {
        match self.store.cancel(owner, id, clock::now()).await? {
            Some(Cancelled::Now { generation, events }) => self.cancelled(&generation, &events).await,
            Some(Cancelled::Requested { attempt, .. }) => self.live.nudge(attempt),
            Some(Cancelled::Already(_)) | None => {}
        }
        Ok(())
    }

    async fn cancelled(&self, generation: &Generation, events: &[Event]) {
        self.live.publish(events);
        self.metrics.ended(generation);
        if self.queue.remove(&generation.provider, generation.id).await.is_err() {
            tracing::warn!(
                generation_id = %generation.id,
                "cancelled, but still in the queue; the worker will skip it"
            );
        }
    }

    /// Tells everybody what an operator decided about a generation, and whoever had its attempt in hand.
    pub async fn was_resolved(&self, generation: &Generation, events: &[Event], attempt: Option<AttemptId>) {
        self.live.publish(events);
        if generation.status.is_terminal() {
            self.metrics.ended(generation);
        }
        match generation.status {
            Status::Queued => self.enqueue(generation).await,
            _ if self.queue.remove(&generation.provider, generation.id).await.is_err() => {
                tracing::warn!(generation_id = %generation.id, "ended, but still in the queue; the worker will skip it");
            }
            _ => {}
        }
        if let Some(attempt) = attempt {
            self.live.nudge(attempt);
        }
    }

    /// Waits until a generation has ended, however that becomes known.
    async fn end_of(&self, owner: UserId, id: GenerationId, watch: &mut Watch) -> Result<Option<Stopped>, StoreError> {
        loop {
            let seen = timeout(LOOK_EVERY, watch.next()).await;
            if matches!(&seen, Ok(Seen::Event(event)) if !event.kind.is_final()) {
                continue;
            }
            let Some(now) = self.store.generation(owner, id).await?.map(Box::new) else {
                return Ok(None);
            };
            match now.status {
                Status::Cancelled => return Ok(Some(Stopped::Cancelled(now))),
                status if status.is_terminal() => return Ok(Some(Stopped::Ended(now))),
                // The hub is gone: what is left is the store.
                _ if matches!(seen, Ok(Seen::Closed)) => sleep(LOOK_EVERY).await,
                _ => {}
            }
        }
    }

    fn usable(&self, registry: &Registry, model_id: &str) -> Result<Arc<Model>, Refusal> {
        let Some(model) = registry.model(model_id) else {
            return Err(Refusal::UnknownModel(
                registry.available(None).map(|m| m.id.clone()).collect(),
            ));
        };
        if !registry.is_available(model) {
            return Err(Refusal::ModelUnavailable(
                "the operator has switched this model off; choose another one".into(),
            ));
        }
        match model
            .providers()
            .any(|name| routes::ready(registry, &self.providers, name).is_some())
        {
            true => Ok(Arc::clone(model)),
            false => Err(not_configured()),
        }
    }

    async fn enqueue(&self, generation: &Generation) {
        let job = Job {
            id: generation.id,
            user_id: generation.user_id,
            provider: generation.provider.as_str().into(),
            cost: generation.price.0.max(1) as u64,
        };
        if let Err(error) = self.queue.enqueue(&[job]).await {
            // Not a failure of its own: whoever lost the queue has said so.
            tracing::debug!(generation_id = %generation.id, error = %error, "not enqueued; the sweeper will do it");
        }
    }
}

fn not_configured() -> Refusal {
    Refusal::ModelUnavailable(
        "the provider of this model is not configured on this server; choose another model".into(),
    )
}
