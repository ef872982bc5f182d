//! The plugin side of the boundary: turns a [`Provider`] into the two exports of a library.
//!
//! Every entry is guarded: a panic becomes a fault with the place it came from, and the next call works. That needs
//! unwinding, so a build with `panic = "abort"` does not compile.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::abi::*;
use crate::{
    Action, Event, Fault, FaultCode, Header, HookTarget, Job, Params, Provider, Response, Step, Transport, Webhook,
};

/// Makes a library of a provider: `export_provider!(Acme, Acme::new)`, once per crate.
///
/// The second argument is a `fn(config: &[u8]) -> Result<Acme, Fault>`; the configuration is the JSON text of the
/// `config` table in `providers.toml` (`{}` without one). Build the crate with `crate-type = ["cdylib"]`.
#[macro_export]
macro_rules! export_provider {
    ($provider:ty, $new:expr) => {
        #[cfg(panic = "abort")]
        compile_error!(
            "a provider library must unwind: remove `panic = \"abort\"` from the profile, or a panic ends the host"
        );

        #[allow(unsafe_code, non_upper_case_globals, missing_docs)]
        const _: () = {
            use $crate::{abi, export};

            impl export::Exported for $provider {
                fn create(config: &[u8]) -> ::core::result::Result<Self, $crate::Fault> {
                    ($new)(config)
                }
            }

            static TABLE: abi::velro_plugin =
                export::table::<$provider>(::core::env!("CARGO_PKG_NAME"), ::core::env!("CARGO_PKG_VERSION"));

            #[used]
            #[unsafe(no_mangle)]
            pub static velro_plugin_abi_v1: abi::velro_abi_note = abi::velro_abi_note::current(0);

            #[unsafe(no_mangle)]
            pub extern "C" fn velro_plugin_entry_v1(_host: *const abi::velro_host) -> *const abi::velro_plugin {
                export::begin();
                &raw const TABLE
            }
        };
    };
}

/// A provider that a library exports; implemented by [`export_provider!`].
pub trait Exported: Provider + Sized {
    /// Makes an instance from the JSON text of its configuration.
    fn create(config: &[u8]) -> Result<Self, Fault>;
}

/// The function table of a provider, for static memory.
pub const fn table<P: Exported>(name: &'static str, version: &'static str) -> velro_plugin {
    velro_plugin {
        struct_size: size_of::<velro_plugin>() as u32,
        flags: 0,
        name: velro_str::of(name.as_bytes()),
        version: velro_str::of(version.as_bytes()),
        create: Some(create::<P>),
        destroy: Some(destroy::<P>),
        manifest: Some(manifest::<P>),
        step: Some(step::<P>),
        quote: Some(quote::<P>),
        webhook: Some(webhook::<P>),
    }
}

thread_local! {
    /// The words and the place of the last panic. An array without a destructor: a thread-local that has one keeps the
    /// library from ever being replaced cleanly.
    static LAST_PANIC: Cell<Words> = const { Cell::new(Words::NONE) };
}

#[derive(Clone, Copy)]
struct Words {
    bytes: [u8; 480],
    len: usize,
}

impl Words {
    const NONE: Words = Words {
        bytes: [0; 480],
        len: 0,
    };
}

impl std::fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.len() - self.len;
        let take = text.floor_char_boundary(room);
        self.bytes[self.len..self.len + take].copy_from_slice(&text.as_bytes()[..take]);
        self.len += take;
        Ok(())
    }
}

/// Called by the library's entry: keeps the words of a panic instead of printing them. The default hook would write to
/// the host's stderr and, with a backtrace, leave a mapping of the file behind.
pub fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let mut words = Words::NONE;
            let text = info.payload_as_str().unwrap_or("panic");
            // Writing to an array cannot fail; what does not fit is left out.
            let _ = match info.location() {
                Some(place) => write!(words, "{text} (at {}:{})", place.file(), place.line()),
                None => write!(words, "{text}"),
            };
            LAST_PANIC.set(words);
        }));
    });
}

/// Runs an entry; a panic becomes a fault.
fn guarded(out: *mut velro_out, body: impl FnOnce(&Out) -> Result<(), Fault>) -> i32 {
    if out.is_null() {
        return VELRO_E_BAD_INPUT;
    }
    let out = Out {
        raw: out,
        // SAFETY: the host passes callbacks that are valid until we return.
        calls: unsafe { read_prefix(out) },
    };
    match catch_unwind(AssertUnwindSafe(|| body(&out))) {
        Ok(Ok(())) => VELRO_OK,
        Ok(Err(fault)) => out.fault(&fault),
        Err(payload) => {
            forget(payload);
            let words = LAST_PANIC.replace(Words::NONE);
            let text = String::from_utf8_lossy(&words.bytes[..words.len]);
            out.fault(&Fault::new(FaultCode::Panic, text))
        }
    }
}

/// The payload's own destructor may panic too, and nothing is left to catch that.
fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

/// The host's callbacks during one call.
struct Out {
    raw: *mut velro_out,
    calls: velro_out,
}

impl Out {
    fn write(&self, text: &[u8]) {
        if let Some(write) = self.calls.write {
            // SAFETY: the callback is valid during this call, and so is the text.
            unsafe { write(self.raw, velro_str::of(text)) }
        }
    }

    fn document(&self, value: &impl serde::Serialize) -> Result<(), Fault> {
        let text = serde_json::to_vec(value).map_err(|e| Fault::new(FaultCode::Internal, e.to_string()))?;
        self.write(&text);
        Ok(())
    }

    fn emit(&self, action: &velro_action) {
        if let Some(emit) = self.calls.emit {
            // SAFETY: the callback is valid during this call; the host copies what the action names before it returns.
            unsafe { emit(self.raw, action) }
        }
    }

    fn fault(&self, fault: &Fault) -> i32 {
        let code = fault.code.number();
        if let Some(tell) = self.calls.fault {
            // SAFETY: the callback is valid during this call, and so is the text.
            unsafe { tell(self.raw, code, velro_str::of(fault.message.as_bytes())) }
        }
        code
    }
}

unsafe extern "C" fn create<P: Exported>(config: velro_str, out: *mut velro_out, made: *mut *mut c_void) -> i32 {
    guarded(out, |_| {
        // SAFETY: the host's text is valid until we return.
        let provider = P::create(unsafe { config.bytes() }.unwrap_or(b"{}"))?;
        // SAFETY: the host passes a place for one pointer.
        unsafe { made.write(Box::into_raw(Box::new(provider)).cast()) };
        Ok(())
    })
}

unsafe extern "C" fn destroy<P: Exported>(this: *mut c_void) {
    if this.is_null() {
        return;
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: it came out of `create`, and the host calls this once, after the last call on it returned.
        drop(unsafe { Box::from_raw(this.cast::<P>()) })
    }));
    if let Err(payload) = dropped {
        forget(payload);
    }
}

/// # Safety
/// `this` came out of `create::<P>` and was not destroyed.
unsafe fn instance<'a, P: Exported>(this: *mut c_void) -> Result<&'a P, Fault> {
    // SAFETY: the caller's promise; `P` is `Sync`, and only shared references are ever made.
    unsafe { this.cast::<P>().as_ref() }.ok_or_else(|| Fault::new(FaultCode::BadInput, "called without an instance"))
}

unsafe extern "C" fn manifest<P: Exported>(this: *mut c_void, out: *mut velro_out) -> i32 {
    // SAFETY: the host passes what `create` made.
    guarded(out, |out| out.document(&unsafe { instance::<P>(this) }?.manifest()?))
}

unsafe extern "C" fn step<P: Exported>(this: *mut c_void, job: *const velro_job, out: *mut velro_out) -> i32 {
    guarded(out, |out| {
        // SAFETY: the host passes what `create` made, and a job that is valid until we return.
        let (provider, raw) = unsafe { (instance::<P>(this)?, job_of(job)?) };
        // SAFETY: as above.
        let headers = unsafe { headers(raw.headers, raw.header_count) };
        // SAFETY: as above.
        let event = unsafe { event(&raw, &headers) }?;
        // SAFETY: as above.
        let step = provider.step(&unsafe { job_view(&raw) }?, event)?;
        emit(out, &step)
    })
}

unsafe extern "C" fn quote<P: Exported>(this: *mut c_void, job: *const velro_job, out: *mut velro_out) -> i32 {
    guarded(out, |out| {
        // SAFETY: the host passes what `create` made, and a job that is valid until we return.
        let (provider, raw) = unsafe { (instance::<P>(this)?, job_of(job)?) };
        // SAFETY: as above.
        out.document(&provider.quote(&unsafe { job_view(&raw) }?)?)
    })
}

unsafe extern "C" fn webhook<P: Exported>(this: *mut c_void, hook: *const velro_hook, out: *mut velro_out) -> i32 {
    guarded(out, |out| {
        // SAFETY: the host passes what `create` made, and a webhook that is valid until we return.
        let target: HookTarget = unsafe {
            let provider = instance::<P>(this)?;
            let raw = read_prefix(hook.as_ref().ok_or_else(|| missing("webhook"))?);
            let headers = headers(raw.headers, raw.header_count);
            provider.webhook(&Webhook {
                query: text(raw.query)?,
                headers: &headers,
                body: raw.body.bytes().unwrap_or_default(),
            })?
        };
        out.document(&target)
    })
}

fn missing(what: &str) -> Fault {
    Fault::new(FaultCode::BadInput, format!("the host passed no {what}"))
}

/// # Safety
/// `job` is null or valid.
unsafe fn job_of(job: *const velro_job) -> Result<velro_job, Fault> {
    if job.is_null() {
        return Err(missing("job"));
    }
    // SAFETY: not null, and the caller's promise.
    Ok(unsafe { read_prefix(job) })
}

/// # Safety
/// What the text names is valid for `'a`.
unsafe fn text<'a>(raw: velro_str) -> Result<&'a str, Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { raw.bytes() }.unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| Fault::new(FaultCode::BadInput, "the host passed text that is not UTF-8"))
}

/// # Safety
/// What the job names is valid for `'a`.
unsafe fn job_view<'a>(raw: &velro_job) -> Result<Job<'a>, Fault> {
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Job {
            id: text(raw.id)?,
            model: text(raw.model)?,
            params: Params::new(text(raw.params_json)?),
            state: raw.state.bytes().unwrap_or_default(),
            idempotency_key: text(raw.idempotency_key)?,
            webhook_url: match raw.webhook_url.ptr.is_null() {
                true => None,
                false => Some(text(raw.webhook_url)?),
            },
            now_ms: raw.now_ms,
            deadline_ms: raw.deadline_ms,
            attempt: raw.attempt,
            steps: raw.steps,
        })
    }
}

/// Headers whose name or value is not UTF-8 are left out; the host sends none.
///
/// # Safety
/// `first` is null or names `count` headers that are valid for `'a`.
unsafe fn headers<'a>(first: *const velro_header, count: usize) -> Vec<Header<'a>> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    let raw = unsafe { std::slice::from_raw_parts(first, count) };
    raw.iter()
        .filter_map(|header| {
            // SAFETY: the caller's promise.
            let (name, value) = unsafe { (text(header.name), text(header.value)) };
            Some(Header {
                name: name.ok()?,
                value: value.ok()?,
            })
        })
        .collect()
}

/// # Safety
/// What the job names is valid for `'a`.
unsafe fn event<'a>(raw: &velro_job, headers: &'a [Header<'a>]) -> Result<Event<'a>, Fault> {
    // SAFETY: the caller's promise.
    let body = unsafe { raw.body.bytes() }.unwrap_or_default();
    let response = Response {
        status: u16::try_from(raw.http_status).unwrap_or(0),
        headers,
        body,
    };
    Ok(match raw.event {
        VELRO_EV_START => Event::Start,
        VELRO_EV_HTTP => Event::Http(response),
        VELRO_EV_FAILED => Event::Failed(
            Transport::from_number(raw.transport_error).ok_or_else(|| Fault::unsupported("this transport error"))?,
        ),
        VELRO_EV_TIMER => Event::Timer,
        VELRO_EV_WEBHOOK => Event::Webhook(response),
        VELRO_EV_CHUNK => Event::Chunk(body),
        VELRO_EV_CANCEL => Event::Cancel,
        VELRO_EV_INTERRUPTED => Event::Interrupted,
        other => return Err(Fault::unsupported(&format!("event {other}"))),
    })
}

fn emit(out: &Out, step: &Step) -> Result<(), Fault> {
    let json = |value: &dyn erased::Json| value.text();
    let progress = step.progress.as_ref().map(|p| json(p)).transpose()?;
    let mut action = velro_action {
        state: velro_str::maybe(step.state.as_deref()),
        remote_id: velro_str::maybe(step.remote_id.as_deref().map(str::as_bytes)),
        progress_json: velro_str::maybe(progress.as_deref()),
        ..EMPTY
    };
    match &step.action {
        Action::Http(request) => {
            let headers: Vec<velro_header> = request
                .headers
                .iter()
                .map(|(name, value)| velro_header {
                    name: velro_str::of(name.as_bytes()),
                    value: velro_str::of(value.as_bytes()),
                })
                .collect();
            action.kind = VELRO_ACT_HTTP;
            action.method = request.method.number();
            action.effect = request.effect.number();
            action.flags = if request.stream { VELRO_AF_STREAM } else { 0 };
            action.timeout_ms = request.timeout_ms;
            action.url = velro_str::of(request.url.as_bytes());
            action.headers = headers.as_ptr();
            action.header_count = headers.len();
            action.body = velro_str::of(&request.body);
            out.emit(&action);
        }
        Action::Wait { ms } => {
            action.kind = VELRO_ACT_WAIT;
            action.wait_ms = *ms;
            out.emit(&action);
        }
        Action::Done(outcome) => {
            let data = json(outcome)?;
            action.kind = VELRO_ACT_DONE;
            action.data_json = velro_str::of(&data);
            out.emit(&action);
        }
        Action::Fail(failure) => {
            action.kind = VELRO_ACT_FAIL;
            action.error_kind = failure.kind.number();
            action.retry = failure.retry.number();
            action.error_code = velro_str::of(failure.code.as_bytes());
            action.message = velro_str::of(failure.message.as_bytes());
            action.wait_ms = failure.retry_after_ms;
            out.emit(&action);
        }
        Action::Emit(values) => {
            let data = json(values)?;
            action.kind = VELRO_ACT_EMIT;
            action.data_json = velro_str::of(&data);
            out.emit(&action);
        }
    }
    Ok(())
}

/// JSON text of anything, without a generic function per type.
mod erased {
    use crate::{Fault, FaultCode};

    pub(super) trait Json {
        fn text(&self) -> Result<Vec<u8>, Fault>;
    }

    impl<T: serde::Serialize> Json for T {
        fn text(&self) -> Result<Vec<u8>, Fault> {
            serde_json::to_vec(self).map_err(|e| Fault::new(FaultCode::Internal, e.to_string()))
        }
    }
}

const EMPTY: velro_action = velro_action {
    struct_size: size_of::<velro_action>() as u32,
    kind: 0,
    state: velro_str::ABSENT,
    remote_id: velro_str::ABSENT,
    progress_json: velro_str::ABSENT,
    method: 0,
    effect: 0,
    flags: 0,
    timeout_ms: 0,
    url: velro_str::ABSENT,
    headers: std::ptr::null(),
    header_count: 0,
    body: velro_str::ABSENT,
    wait_ms: 0,
    data_json: velro_str::ABSENT,
    error_kind: 0,
    retry: 0,
    error_code: velro_str::ABSENT,
    message: velro_str::ABSENT,
};
