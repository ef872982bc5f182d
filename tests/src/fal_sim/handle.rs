//! The test's side of the simulator: faults, manual steps, the ledger of what was bought.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::errors::Failure;
use super::faults::{Action, Point, Rule};
use super::job::{Job, Outcome, Phase, RequestRecord, failed};
use super::state::{Inner, Refusal, Settings};

/// A cheap handle on a running simulator; clones share it.
#[derive(Debug, Clone)]
pub struct SimHandle(pub(super) Arc<Inner>);

/// One thing bought more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoublePurchase {
    /// What the submits have in common: `webhook_url` or `prompt`.
    pub by: &'static str,
    /// Its value.
    pub correlation: String,
    /// FAL's ids of all requests with it, in order of acceptance.
    pub request_ids: Vec<String>,
}

impl SimHandle {
    /// Adds a fault rule; rules are tried in the order they were added.
    pub fn add_rule(&self, rule: Rule) {
        self.0.lock().rules.push(rule);
    }

    /// Short for a rule that strikes `times` times.
    pub fn fault(&self, at: Point, action: Action, times: u32) {
        self.add_rule(Rule::new(at, action).times(times));
    }

    /// Forgets every rule. Rules named in the prompts of accepted jobs stay.
    pub fn clear_faults(&self) {
        let mut state = self.0.lock();
        state.rules.clear();
        state.prompt_rules.clear();
    }

    /// The rules as they stand, used-up ones included.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        self.0.lock().rules.clone()
    }

    /// A copy of the settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.0.lock().settings.clone()
    }

    /// Changes settings; jobs already accepted keep their times.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.lock().settings);
        self.0.notify();
    }

    /// What clients shall call this simulator, for example the URL of a TLS front.
    pub fn set_public_url(&self, url: impl Into<String>) {
        let url = url.into();
        self.change_settings(|settings| settings.public_url = Some(url));
    }

    /// Closes the listener and every connection; new ones are refused by the kernel. The port stays reserved.
    pub async fn refuse_connections(&self) {
        self.0.open.send_replace(false);
        self.listening(false).await;
    }

    /// Undoes [`Self::refuse_connections`].
    pub async fn accept_connections(&self) {
        self.0.open.send_replace(true);
        self.listening(true).await;
    }

    async fn listening(&self, wanted: bool) {
        let mut listening = self.0.listening.subscribe();
        let stopped = self.0.stop.cancelled();
        tokio::select! {
            _ = listening.wait_for(|now| *now == wanted) => {}
            () = stopped => {}
        }
    }

    /// Everything bought, in order of acceptance.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.settle(now);
        state.jobs.iter().map(|job| job.record(now)).collect()
    }

    /// One purchase.
    #[must_use]
    pub fn request(&self, request_id: &str) -> Option<RequestRecord> {
        self.0
            .with_job(request_id, |state, index, now| state.jobs[index].record(now))
    }

    /// Submits that were not accepted.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.0.lock().refusals.clone()
    }

    /// Submits that bought the same thing again: same webhook URL, or same prompt (so give every generation of a
    /// test its own). Buying again after the earlier one had ended without a charge is not a double purchase.
    #[must_use]
    pub fn bought_twice(&self) -> Vec<DoublePurchase> {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.settle(now);
        let mut groups: BTreeMap<(&'static str, &str), Vec<&Job>> = BTreeMap::new();
        for job in &state.jobs {
            if let Some(url) = &job.webhook_url {
                groups.entry(("webhook_url", url)).or_default().push(job);
            }
            if !job.prompt().is_empty() {
                groups.entry(("prompt", job.prompt())).or_default().push(job);
            }
        }
        groups.retain(|_, jobs| {
            jobs.iter().enumerate().any(|(at, later)| {
                let mut earlier = jobs[..at].iter();
                earlier.any(|earlier| !earlier.was_free_by(later.accepted))
            })
        });
        let double = |((by, correlation), jobs): ((_, &str), Vec<&Job>)| DoublePurchase {
            by,
            correlation: correlation.to_owned(),
            request_ids: jobs.iter().map(|job| job.request_id.clone()).collect(),
        };
        groups.into_iter().map(double).collect()
    }

    /// Moves a waiting job to `IN_PROGRESS`. A job that never ends, or that `manual` settings hold, stays there until
    /// finished by hand.
    ///
    /// # Errors
    /// If there is no such job or it does not wait.
    pub fn start_job(&self, request_id: &str) -> Result<()> {
        self.step(request_id, |state, index, now| {
            let job = &mut state.jobs[index];
            if job.phase(now) != Phase::InQueue {
                bail!("it is {}", job.phase(now).name());
            }
            job.start(now);
            Ok(())
        })
    }

    /// Ends a job now, with the outcome it would have had.
    ///
    /// # Errors
    /// If there is no such job or it has ended.
    pub fn finish_job(&self, request_id: &str) -> Result<()> {
        self.step(request_id, |state, index, now| {
            let job = &mut state.jobs[index];
            if job.phase(now) == Phase::Completed {
                bail!("it has ended already");
            }
            let outcome = job.outcome.clone();
            job.end(now, outcome);
            Ok(())
        })
    }

    /// Ends a job now with one of FAL's error types.
    ///
    /// # Errors
    /// If there is no such job, it has ended, or FAL documents no such type.
    pub fn fail_job(&self, request_id: &str, error_type: &str) -> Result<()> {
        if Failure::of_type(error_type).is_none() {
            bail!("FAL documents no error type `{error_type}`");
        }
        self.step(request_id, |state, index, now| {
            let job = &mut state.jobs[index];
            if job.phase(now) == Phase::Completed {
                bail!("it has ended already");
            }
            job.end(now, failed(error_type));
            Ok(())
        })
    }

    fn step(
        &self,
        request_id: &str,
        work: impl FnOnce(&mut super::state::State, usize, Instant) -> Result<()>,
    ) -> Result<()> {
        let done = self.0.with_job(request_id, work);
        done.with_context(|| format!("no request {request_id}"))?
            .with_context(|| format!("request {request_id}"))?;
        self.0.notify();
        Ok(())
    }

    /// Waits until `condition` holds for the purchases, and gives them.
    ///
    /// # Errors
    /// After `timeout`, with what there was instead.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&[RequestRecord]) -> bool,
    ) -> Result<Vec<RequestRecord>> {
        let deadline = Instant::now() + timeout;
        let mut changed = self.0.changed.subscribe();
        loop {
            let requests = self.requests();
            if condition(&requests) {
                return Ok(requests);
            }
            let now = Instant::now();
            if now >= deadline {
                bail!(
                    "after {timeout:?} the simulator's requests are still {}",
                    serde_json::to_string_pretty(&requests)?
                );
            }
            let next = {
                let state = self.0.lock();
                let changes = state.jobs.iter().filter_map(|job| job.next_change(now));
                changes.min().map_or(deadline, |at| at.min(deadline))
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// The key set served at `/.well-known/jwks.json`.
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.0.signer.jwks()
    }

    /// Milliunits charged for everything so far; the outcome of every delivered job.
    #[must_use]
    pub fn billed_milliunits(&self) -> u64 {
        let now = Instant::now();
        let state = self.0.lock();
        let delivered = state
            .jobs
            .iter()
            .filter(|job| matches!(job.outcome, Outcome::Deliver { .. }));
        delivered.map(|job| job.billed_milliunits(now)).sum()
    }
}
