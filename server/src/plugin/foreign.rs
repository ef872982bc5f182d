//! An instance of a library as a [`Provider`] like any other.

#![allow(unsafe_code)]

use ::velro_plugin::abi::*;
use ::velro_plugin::{Event, Fault, Header, HookTarget, Job, Manifest, Provider, Quote, Step, Webhook};
use serde_json::{Map, Value};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::fault::{LoadFault, LoadProblem};
use super::lane::{Lane, NO_ANSWER};
use super::library::{Library, Table};

/// Calls at the same time, for a library that allows more than one.
const THREADS: usize = 4;
/// A call that takes longer is logged.
const SOFT_LIMIT: Duration = Duration::from_millis(50);
/// A call that takes longer is given up, and one more second for every [`BYTES_PER_SECOND`] that it was given.
const HARD_LIMIT: Duration = Duration::from_secs(1);
const BYTES_PER_SECOND: usize = 8 << 20;

/// An instance of a library, for one entry of the registry.
pub struct Foreign {
    library: Arc<Library>,
    lane: Lane,
    /// `None` only while it is dropped.
    instance: Option<Arc<Instance>>,
    slow: AtomicU64,
}

/// What `create` made; destroyed with the last call on it.
struct Instance {
    table: Table,
    this: *mut c_void,
}

// SAFETY: the header lets the host call from any thread, several at once unless the library is serial, and then its lane
// has one thread.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        if let (Some(destroy), false) = (self.table.0.destroy, self.this.is_null()) {
            // SAFETY: `this` came out of a successful `create`, and nobody calls it any more.
            unsafe { destroy(self.this) }
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let instance = self.instance.take();
        self.lane.post(move || drop(instance));
    }
}

impl Foreign {
    /// Makes an instance with a configuration. `entry` is its name in the registry, for logs and threads.
    pub fn create(library: Arc<Library>, entry: &str, config: &Map<String, Value>) -> Result<Foreign, LoadFault> {
        let fault = |what: String, remedy: &str| LoadFault::new(&library.path, LoadProblem::Create, what, remedy);
        let threads = if library.table.is_serial() { 1 } else { THREADS };
        let lane = Lane::new(entry, threads)
            .map_err(|e| fault(format!("cannot be given threads ({e})"), "raise the limit of threads"))?;
        let (table, config, name) = (
            library.table,
            Value::Object(config.clone()).to_string(),
            entry.to_owned(),
        );
        let made = lane
            .run(HARD_LIMIT, move || make(table, &config, &name))
            .and_then(|made| made);
        let instance = made.map_err(|f| match f.message.starts_with(NO_ANSWER) {
            true => LoadFault::new(
                &library.path,
                LoadProblem::Stuck,
                format!("`create`: {}", f.message),
                STUCK,
            ),
            false => fault(format!("does not accept its configuration ({f})"), "correct `config`"),
        })?;
        Ok(Foreign {
            library,
            lane,
            instance: Some(Arc::new(instance)),
            slow: AtomicU64::new(0),
        })
    }

    /// The library it is an instance of.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Calls a function on a thread of the lane.
    fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        bytes: usize,
        call: impl FnOnce(&Instance, &str) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(instance) = self.instance.clone() else {
            return Err(Fault::unsupported(what));
        };
        let name = self.library.name.clone();
        let limit = HARD_LIMIT + HARD_LIMIT * u32::try_from(bytes / BYTES_PER_SECOND).unwrap_or(u32::MAX);
        let began = Instant::now();
        let answer = self
            .lane
            .run(limit, move || call(&instance, &name))
            .and_then(|answer| answer);
        let took = began.elapsed();
        // The first, the second, the fourth ...: a library that is always slow says so, and not with every call.
        if took > SOFT_LIMIT && (self.slow.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            tracing::warn!(library = self.library.name, what, ?took, "a provider library is slow");
        }
        answer
    }
}

const STUCK: &str = "its functions must return at once; restart the server to be rid of the thread";

fn make(table: Table, config: &str, library: &str) -> Result<Instance, Fault> {
    let mut this = std::ptr::null_mut();
    if let Some(create) = table.0.create {
        let mut answer = Answer::new(library);
        // SAFETY: the texts and the callbacks are valid during the call.
        let code = unsafe { create(velro_str::of(config.as_bytes()), answer.out(), &raw mut this) };
        answer.into_nothing(code)?;
    }
    Ok(Instance { table, this })
}

impl Provider for Foreign {
    fn manifest(&self) -> Result<Manifest, Fault> {
        self.ask("manifest", 0, |instance, name| {
            let manifest = instance
                .table
                .0
                .manifest
                .ok_or_else(|| Fault::unsupported("manifest"))?;
            let mut answer = Answer::new(name);
            // SAFETY: the instance lives, and the callbacks are valid during the call.
            let code = unsafe { manifest(instance.this, answer.out()) };
            answer.into_document(code, "manifest")
        })
    }

    fn quote(&self, job: &Job<'_>) -> Result<Option<Quote>, Fault> {
        if self.library.table.0.quote.is_none() {
            return Ok(None);
        }
        let owned = Owned::of(job, None);
        self.ask("quote", owned.bytes(), move |instance, name| {
            let quote = instance.table.0.quote.ok_or_else(|| Fault::unsupported("quote"))?;
            let mut answer = Answer::new(name);
            // SAFETY: the instance lives; job and callbacks are valid during the call.
            let code = owned.lend(|job| unsafe { quote(instance.this, job, answer.out()) });
            answer.into_document(code, "quote")
        })
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        let owned = Owned::of(job, Some(&event));
        self.ask("step", owned.bytes(), move |instance, name| {
            let step = instance.table.0.step.ok_or_else(|| Fault::unsupported("step"))?;
            let mut answer = Answer::new(name);
            // SAFETY: the instance lives; job and callbacks are valid during the call.
            let code = owned.lend(|job| unsafe { step(instance.this, job, answer.out()) });
            answer.into_step(code)
        })
    }

    fn webhook(&self, hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        if self.library.table.0.webhook.is_none() {
            return Err(Fault::unsupported("webhook"));
        }
        let (query, headers, body) = (hook.query.to_owned(), own(hook.headers), hook.body.to_vec());
        self.ask("webhook", body.len(), move |instance, name| {
            let webhook = instance.table.0.webhook.ok_or_else(|| Fault::unsupported("webhook"))?;
            let mut answer = Answer::new(name);
            let headers = lend_headers(&headers);
            let hook = velro_hook {
                struct_size: size_of::<velro_hook>() as u32,
                reserved: 0,
                query: velro_str::of(query.as_bytes()),
                headers: headers.as_ptr(),
                header_count: headers.len(),
                body: velro_str::of(&body),
            };
            // SAFETY: the instance lives; webhook and callbacks are valid during the call.
            let code = unsafe { webhook(instance.this, &raw const hook, answer.out()) };
            answer.into_document(code, "webhook's target")
        })
    }
}

/// A job and its event, owned: a call that is given up must not be left with memory of its caller.
struct Owned {
    event: u32,
    id: String,
    model: String,
    params: String,
    state: Vec<u8>,
    key: String,
    webhook_url: Option<String>,
    now_ms: u64,
    deadline_ms: u64,
    attempt: u32,
    steps: u32,
    status: u16,
    transport: u32,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Owned {
    fn of(job: &Job<'_>, event: Option<&Event<'_>>) -> Owned {
        let answer = match event {
            Some(Event::Http(answer) | Event::Webhook(answer)) => Some(answer),
            _ => None,
        };
        let (number, transport) = match event {
            None => (0, 0),
            Some(Event::Start) => (VELRO_EV_START, 0),
            Some(Event::Http(_)) => (VELRO_EV_HTTP, 0),
            Some(Event::Failed(transport)) => (VELRO_EV_FAILED, transport.number()),
            Some(Event::Timer) => (VELRO_EV_TIMER, 0),
            Some(Event::Webhook(_)) => (VELRO_EV_WEBHOOK, 0),
            Some(Event::Chunk(_)) => (VELRO_EV_CHUNK, 0),
            Some(Event::Cancel) => (VELRO_EV_CANCEL, 0),
            Some(Event::Interrupted) => (VELRO_EV_INTERRUPTED, 0),
        };
        let body = match event {
            Some(Event::Chunk(piece)) => piece,
            _ => answer.map_or(&[][..], |answer| answer.body),
        };
        Owned {
            event: number,
            id: job.id.to_owned(),
            model: job.model.to_owned(),
            params: job.params.raw().to_owned(),
            state: job.state.to_vec(),
            key: job.idempotency_key.to_owned(),
            webhook_url: job.webhook_url.map(str::to_owned),
            now_ms: job.now_ms,
            deadline_ms: job.deadline_ms,
            attempt: job.attempt,
            steps: job.steps,
            status: answer.map_or(0, |answer| answer.status),
            transport,
            headers: answer.map_or_else(Vec::new, |answer| own(answer.headers)),
            body: body.to_vec(),
        }
    }

    fn bytes(&self) -> usize {
        self.params.len() + self.body.len()
    }

    /// Lends it out in the library's terms.
    fn lend(&self, call: impl FnOnce(*const velro_job) -> i32) -> i32 {
        let headers = lend_headers(&self.headers);
        let has_answer = matches!(self.event, VELRO_EV_HTTP | VELRO_EV_WEBHOOK | VELRO_EV_CHUNK);
        let job = velro_job {
            struct_size: size_of::<velro_job>() as u32,
            event: self.event,
            id: velro_str::of(self.id.as_bytes()),
            model: velro_str::of(self.model.as_bytes()),
            params_json: velro_str::of(self.params.as_bytes()),
            state: velro_str::maybe(Some(self.state.as_slice()).filter(|state| !state.is_empty())),
            idempotency_key: velro_str::of(self.key.as_bytes()),
            webhook_url: velro_str::maybe(self.webhook_url.as_deref().map(str::as_bytes)),
            now_ms: self.now_ms,
            deadline_ms: self.deadline_ms,
            attempt: self.attempt,
            steps: self.steps,
            http_status: self.status.into(),
            transport_error: self.transport,
            headers: headers.as_ptr(),
            header_count: headers.len(),
            body: velro_str::maybe(Some(self.body.as_slice()).filter(|_| has_answer)),
        };
        call(&raw const job)
    }
}

fn own(headers: &[Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|h| (h.name.to_owned(), h.value.to_owned()))
        .collect()
}

fn lend_headers(headers: &[(String, String)]) -> Vec<velro_header> {
    let lend = |(name, value): &(String, String)| velro_header {
        name: velro_str::of(name.as_bytes()),
        value: velro_str::of(value.as_bytes()),
    };
    headers.iter().map(lend).collect()
}
