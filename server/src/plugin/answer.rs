//! What a library answered: copied, bounded and checked while its callback runs.

#![allow(unsafe_code)]

use ::velro_plugin::abi::*;
use ::velro_plugin::{
    Action, Effect, ErrorKind, Failure, Fault, FaultCode, HttpRequest, Method, Outcome, Progress, Retry, Step,
};
use serde::de::DeserializeOwned;

/// Largest saved state, in bytes.
pub(super) const MAX_STATE_BYTES: usize = 64 << 10;
const MAX_URL_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_BODY_BYTES: usize = 32 << 20;
const MAX_DOCUMENT_BYTES: usize = 16 << 20;
const MAX_ID_BYTES: usize = 512;
const MAX_MESSAGE_BYTES: usize = 4 << 10;
const MAX_LOG_LINES: u32 = 20;

/// The callbacks of one call, with what came through them. The first field is what the library sees.
#[repr(C)]
pub(super) struct Answer {
    out: velro_out,
    /// For log lines.
    library: String,
    step: Option<Result<Step, Fault>>,
    emits: u32,
    document: Vec<u8>,
    too_long: bool,
    fault: Option<String>,
    lines: u32,
}

impl Answer {
    pub(super) fn new(library: &str) -> Box<Answer> {
        Box::new(Answer {
            out: velro_out {
                struct_size: size_of::<velro_out>() as u32,
                reserved: 0,
                emit: Some(emit),
                write: Some(write),
                fault: Some(fault),
                log: Some(log),
            },
            library: library.to_owned(),
            step: None,
            emits: 0,
            document: Vec::new(),
            too_long: false,
            fault: None,
            lines: 0,
        })
    }

    /// What the library is given; valid as long as the answer, and only on this thread.
    pub(super) fn out(&mut self) -> *mut velro_out {
        // The whole answer, so that the callbacks may reach what is behind the first field.
        (&raw mut *self).cast()
    }

    /// The fault that a return value means; `Ok` for none.
    fn checked(&mut self, code: i32) -> Result<(), Fault> {
        if code == VELRO_OK {
            return Ok(());
        }
        let said = self.fault.take().unwrap_or_default();
        Err(match FaultCode::from_number(code) {
            Some(code) => Fault::new(code, said),
            None => Fault::new(
                FaultCode::Internal,
                format!("answered with the unknown code {code}: {said}"),
            ),
        })
    }

    /// The one action of a `step`.
    pub(super) fn into_step(mut self: Box<Self>, code: i32) -> Result<Step, Fault> {
        self.checked(code)?;
        match (self.emits, self.step) {
            (1, Some(step)) => step,
            (0, _) => Err(Fault::new(FaultCode::NoAction, "returned without an action")),
            (emits, _) => Err(broken(format!("emitted {emits} actions in one step"))),
        }
    }

    /// The document of one of the other functions.
    pub(super) fn into_document<T: DeserializeOwned>(mut self: Box<Self>, code: i32, what: &str) -> Result<T, Fault> {
        self.checked(code)?;
        if self.too_long {
            return Err(broken(format!(
                "its {what} is longer than {} MiB",
                MAX_DOCUMENT_BYTES >> 20
            )));
        }
        if self.document.is_empty() {
            return Err(Fault::new(FaultCode::NoAction, format!("returned without a {what}")));
        }
        serde_json::from_slice(&self.document).map_err(|e| broken(format!("its {what} is not what it should be: {e}")))
    }

    /// The fault of a function that answers with nothing else.
    pub(super) fn into_nothing(mut self: Box<Self>, code: i32) -> Result<(), Fault> {
        self.checked(code)
    }
}

fn broken(message: impl Into<String>) -> Fault {
    Fault::new(FaultCode::Internal, message)
}

/// Text of a library for logs and people: valid UTF-8, no control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// # Safety
/// What `raw` names, if it is not too long, is readable during the callback.
unsafe fn bounded(raw: velro_str, most: usize, what: &str) -> Result<Option<Vec<u8>>, Fault> {
    if raw.ptr.is_null() {
        return Ok(None);
    }
    if raw.len > most {
        return Err(broken(format!(
            "its {what} is {} bytes long; {most} are allowed",
            raw.len
        )));
    }
    // SAFETY: the caller's promise; the length has just been bounded.
    Ok(unsafe { raw.bytes() }.map(<[u8]>::to_vec))
}

/// # Safety
/// As for [`bounded`].
unsafe fn text(raw: velro_str, most: usize, what: &str) -> Result<Option<String>, Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bounded(raw, most, what) }?;
    bytes
        .map(|bytes| String::from_utf8(bytes).map_err(|_| broken(format!("its {what} is not UTF-8"))))
        .transpose()
}

/// # Safety
/// As for [`bounded`].
unsafe fn json<T: DeserializeOwned>(raw: velro_str, what: &str) -> Result<Option<T>, Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bounded(raw, MAX_DOCUMENT_BYTES, what) }?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes).map_err(|e| broken(format!("its {what} cannot be read: {e}"))))
        .transpose()
}

/// # Safety
/// The action is one of a library during its callback.
unsafe fn step_of(action: *const velro_action) -> Result<Step, Fault> {
    if action.is_null() || !action.is_aligned() {
        return Err(broken("emitted no action"));
    }
    // SAFETY: not null, and the caller's promise, here and below.
    unsafe {
        let raw = read_prefix(action);
        let remote_id = text(raw.remote_id, MAX_ID_BYTES, "remote id")?;
        if remote_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.chars().any(char::is_control))
        {
            return Err(broken("its remote id is empty or not printable"));
        }
        Ok(Step {
            state: bounded(raw.state, MAX_STATE_BYTES, "state")?,
            remote_id,
            progress: json::<Progress>(raw.progress_json, "progress")?,
            action: match raw.kind {
                VELRO_ACT_HTTP => Action::Http(request_of(&raw)?),
                VELRO_ACT_WAIT => Action::Wait { ms: raw.wait_ms },
                VELRO_ACT_DONE => Action::Done(
                    json::<Outcome>(raw.data_json, "outcome")?.ok_or_else(|| broken("is done without an outcome"))?,
                ),
                VELRO_ACT_FAIL => Action::Fail(failure_of(&raw)?),
                VELRO_ACT_EMIT => return Err(Fault::unsupported("streaming")),
                other => return Err(broken(format!("emitted the unknown action {other}"))),
            },
        })
    }
}

/// # Safety
/// As for [`step_of`].
unsafe fn request_of(raw: &velro_action) -> Result<HttpRequest, Fault> {
    let unknown = |what: &str, number: u32| broken(format!("asked for the unknown {what} {number}"));
    if raw.flags & VELRO_AF_STREAM != 0 {
        return Err(Fault::unsupported("streaming"));
    }
    let nowhere = raw.headers.is_null() || !raw.headers.is_aligned();
    if raw.header_count > MAX_HEADERS || (nowhere && raw.header_count > 0) {
        return Err(broken(format!("asked for {} headers", raw.header_count)));
    }
    let mut headers = Vec::with_capacity(raw.header_count);
    for index in 0..raw.header_count {
        // SAFETY: the caller's promise: as many headers as it says, each with texts.
        unsafe {
            let header = raw.headers.add(index).read();
            let name = text(header.name, MAX_HEADER_BYTES, "header name")?.unwrap_or_default();
            let value = text(header.value, MAX_HEADER_BYTES, "header value")?.unwrap_or_default();
            headers.push((name.into(), value.into()));
        }
    }
    let method = Method::from_number(raw.method).ok_or_else(|| unknown("method", raw.method))?;
    let effect = Effect::from_number(raw.effect).ok_or_else(|| unknown("effect", raw.effect))?;
    // Zero is `read`: an effect that was forgotten would make a paid request one that is repeated freely.
    if effect == Effect::Read && !matches!(method, Method::Get | Method::Head) {
        return Err(broken(format!(
            "asked for a {method:?} whose effect is `read`; say `submit` or `write`"
        )));
    }
    Ok(HttpRequest {
        method,
        effect,
        // SAFETY: the caller's promise.
        url: unsafe { text(raw.url, MAX_URL_BYTES, "URL") }?
            .ok_or_else(|| broken("asked for a request without a URL"))?,
        headers,
        // SAFETY: the caller's promise.
        body: unsafe { bounded(raw.body, MAX_BODY_BYTES, "request body") }?.unwrap_or_default(),
        stream: false,
        timeout_ms: raw.timeout_ms,
    })
}

/// # Safety
/// As for [`step_of`].
unsafe fn failure_of(raw: &velro_action) -> Result<Failure, Fault> {
    let unknown = |what: &str, number: u32| broken(format!("failed with the unknown {what} {number}"));
    // SAFETY: the caller's promise.
    let (code, message) = unsafe {
        (
            bounded(raw.error_code, MAX_ID_BYTES, "error code")?,
            bounded(raw.message, MAX_MESSAGE_BYTES, "message")?,
        )
    };
    Ok(Failure {
        kind: ErrorKind::from_number(raw.error_kind).ok_or_else(|| unknown("kind", raw.error_kind))?,
        retry: Retry::from_number(raw.retry).ok_or_else(|| unknown("advice", raw.retry))?,
        code: code.map_or_else(|| "failed".into(), |code| printable(&code)),
        message: message.map_or_else(|| "The provider could not do it".into(), |text| printable(&text)),
        retry_after_ms: raw.wait_ms,
    })
}

/// # Safety
/// `out` came out of [`Answer::out`] and its call has not returned.
unsafe fn answer<'a>(out: *mut velro_out) -> Option<&'a mut Answer> {
    // SAFETY: the caller's promise; the library calls on one thread, one callback at a time.
    unsafe { out.cast::<Answer>().as_mut() }
}

unsafe extern "C" fn emit(out: *mut velro_out, action: *const velro_action) {
    // SAFETY: the library promises what the header asks for.
    unsafe {
        let Some(answer) = answer(out) else { return };
        answer.emits = answer.emits.saturating_add(1);
        if answer.emits == 1 {
            answer.step = Some(step_of(action));
        }
    }
}

unsafe extern "C" fn write(out: *mut velro_out, piece: velro_str) {
    // SAFETY: the library promises what the header asks for.
    unsafe {
        let Some(answer) = answer(out) else { return };
        if piece.len > MAX_DOCUMENT_BYTES - answer.document.len() {
            answer.too_long = true;
            return;
        }
        answer.document.extend_from_slice(piece.bytes().unwrap_or_default());
    }
}

unsafe extern "C" fn fault(out: *mut velro_out, _code: i32, message: velro_str) {
    // SAFETY: the library promises what the header asks for.
    unsafe {
        let Some(answer) = answer(out) else { return };
        let short = velro_str {
            ptr: message.ptr,
            len: message.len.min(MAX_MESSAGE_BYTES),
        };
        answer.fault = Some(printable(short.bytes().unwrap_or_default()));
    }
}

unsafe extern "C" fn log(out: *mut velro_out, level: u32, message: velro_str) {
    // SAFETY: the library promises what the header asks for.
    let (library, line) = unsafe {
        let Some(answer) = answer(out) else { return };
        answer.lines = answer.lines.saturating_add(1);
        if answer.lines > MAX_LOG_LINES {
            return;
        }
        let short = velro_str {
            ptr: message.ptr,
            len: message.len.min(MAX_MESSAGE_BYTES),
        };
        (&answer.library, printable(short.bytes().unwrap_or_default()))
    };
    match level {
        0 | 1 => tracing::error!(library, "{line}"),
        2 => tracing::warn!(library, "{line}"),
        3 => tracing::info!(library, "{line}"),
        4 => tracing::debug!(library, "{line}"),
        _ => tracing::trace!(library, "{line}"),
    }
}
