//! The C side of the boundary: plain structs, constants and two exports, version 1.0.
//!
//! `include/velro_plugin.h` is generated from this file (`cargo run -p tests --bin header`) and a test holds the two
//! together. The rules in words are in `PLUGINS.md`; the short form:
//!
//! - **Nothing changes owner**, in either direction. What a pointer names belongs to whoever passed it and is valid until
//!   that call (of a plugin function, or of a callback) returns. There is no free function.
//! - **Minors only append**: fields at the end of structs, new constants. Every struct that may grow begins with
//!   `struct_size` as its writer knows it; a reader never reads past it and takes zero for the rest ([`read_prefix`]).
//!   `velro_str`, `velro_header` and `velro_abi_note` are frozen.
//! - Constants are `uint32_t`, never C enums, bit fields or `bool`.

#![allow(non_camel_case_types, unsafe_code)]

use std::ffi::{c_char, c_void};
use std::mem::{MaybeUninit, size_of};

/// Major version of this boundary; it is part of the names of both exports.
pub const VELRO_ABI_MAJOR: u32 = 1;
/// Minor version: what has been appended since the major.
pub const VELRO_ABI_MINOR: u32 = 0;
/// First bytes of `velro_plugin_abi_v1`.
pub const VELRO_MAGIC: [u8; 8] = *b"VELROPLG";

/// Exactly one `emit` (step), or at least one `write` (documents), came before.
pub const VELRO_OK: i32 = 0;
/// Event, model or function not known.
pub const VELRO_E_UNSUPPORTED: i32 = 1;
/// Parameters or configuration that this plugin cannot read.
pub const VELRO_E_BAD_INPUT: i32 = 2;
/// Saved state of an incompatible version.
pub const VELRO_E_BAD_STATE: i32 = 3;
/// The provider's API answered something that cannot be parsed.
pub const VELRO_E_BAD_RESPONSE: i32 = 4;
/// Anything else.
pub const VELRO_E_INTERNAL: i32 = 5;
/// A caught panic or exception.
pub const VELRO_E_PANIC: i32 = 6;
/// Set by the host: VELRO_OK was returned and nothing was emitted.
pub const VELRO_E_NO_ACTION: i32 = 7;

/// First call of an attempt.
pub const VELRO_EV_START: u32 = 1;
/// The answer to the last VELRO_ACT_HTTP: status, headers, body.
pub const VELRO_EV_HTTP: u32 = 2;
/// There was no answer: see `transport_error`.
pub const VELRO_EV_FAILED: u32 = 3;
/// The wait is over.
pub const VELRO_EV_TIMER: u32 = 4;
/// A verified webhook for this job: headers, body.
pub const VELRO_EV_WEBHOOK: u32 = 5;
/// A piece of a streamed body. Reserved: this host does not stream yet.
pub const VELRO_EV_CHUNK: u32 = 6;
/// The user cancelled, or the deadline passed.
pub const VELRO_EV_CANCEL: u32 = 7;
/// The host restarted with a submit in flight: whether it arrived is not known.
pub const VELRO_EV_INTERRUPTED: u32 = 8;

/// No byte left the host: safe to submit again.
pub const VELRO_TE_NOT_SENT: u32 = 1;
/// No complete answer in time.
pub const VELRO_TE_TIMEOUT: u32 = 2;
/// The connection broke after bytes were sent.
pub const VELRO_TE_RESET: u32 = 3;
/// The answer was larger than the host accepts.
pub const VELRO_TE_BODY_TOO_LARGE: u32 = 4;
/// The host has stopped talking to this provider for a while.
pub const VELRO_TE_CIRCUIT_OPEN: u32 = 5;
/// The URL is not on a host of the manifest.
pub const VELRO_TE_HOST_DENIED: u32 = 6;

/// Perform a request; then VELRO_EV_HTTP or VELRO_EV_FAILED.
pub const VELRO_ACT_HTTP: u32 = 1;
/// Call again with VELRO_EV_TIMER after `wait_ms`, or earlier with a webhook or a cancel.
pub const VELRO_ACT_WAIT: u32 = 2;
/// The job is finished: `data_json` is `{"outputs":[...],"billed":...,"meta":{...}}`.
pub const VELRO_ACT_DONE: u32 = 3;
/// The job failed: `error_kind`, `retry`, `error_code`, `message`.
pub const VELRO_ACT_FAIL: u32 = 4;
/// Streaming. Reserved: this host does not stream yet and treats it as a fault.
pub const VELRO_ACT_EMIT: u32 = 5;

/// HTTP GET.
pub const VELRO_GET: u32 = 0;
/// HTTP POST.
pub const VELRO_POST: u32 = 1;
/// HTTP PUT.
pub const VELRO_PUT: u32 = 2;
/// HTTP PATCH.
pub const VELRO_PATCH: u32 = 3;
/// HTTP DELETE.
pub const VELRO_DELETE: u32 = 4;
/// HTTP HEAD.
pub const VELRO_HEAD: u32 = 5;

/// The host may repeat the request freely.
pub const VELRO_FX_READ: u32 = 0;
/// It costs money: never repeated, once a byte has left.
pub const VELRO_FX_SUBMIT: u32 = 1;
/// It costs money and carries an idempotency key that the provider honours.
pub const VELRO_FX_SUBMIT_IDEMPOTENT: u32 = 2;
/// A repeatable write, such as a cancel.
pub const VELRO_FX_WRITE: u32 = 3;

/// The provider refuses this input.
pub const VELRO_ERR_INVALID_INPUT: u32 = 1;
/// The host's key is missing, wrong or locked.
pub const VELRO_ERR_AUTH: u32 = 2;
/// The host's account with the provider is out of money.
pub const VELRO_ERR_QUOTA: u32 = 3;
/// Too many requests.
pub const VELRO_ERR_RATE_LIMITED: u32 = 4;
/// The provider's safety system refused the prompt or the result.
pub const VELRO_ERR_CONTENT_POLICY: u32 = 5;
/// The model or the job does not exist.
pub const VELRO_ERR_NOT_FOUND: u32 = 6;
/// The provider is down or overloaded.
pub const VELRO_ERR_UNAVAILABLE: u32 = 7;
/// The provider ran out of time.
pub const VELRO_ERR_TIMEOUT: u32 = 8;
/// Cancelled.
pub const VELRO_ERR_CANCELLED: u32 = 9;
/// An answer that makes no sense.
pub const VELRO_ERR_BAD_RESPONSE: u32 = 10;
/// Whether the job was bought is not known: never retried, never refunded by itself.
pub const VELRO_ERR_UNKNOWN_OUTCOME: u32 = 11;
/// The provider reported a failure of its own.
pub const VELRO_ERR_UPSTREAM: u32 = 12;

/// It would fail again.
pub const VELRO_RETRY_NEVER: u32 = 0;
/// The same provider may succeed later.
pub const VELRO_RETRY_SAME: u32 = 1;
/// Only another provider may succeed.
pub const VELRO_RETRY_OTHER: u32 = 2;

/// Deliver the answer in chunks. Reserved: see VELRO_ACT_EMIT.
pub const VELRO_AF_STREAM: u32 = 1;

/// The host must not call one instance concurrently.
pub const VELRO_F_SERIAL: u32 = 1;
/// Says that unloading would be harmless. Reserved: this host never unloads a library.
pub const VELRO_F_UNLOADABLE: u32 = 2;

/// A text or bytes, not NUL-terminated. `{NULL, 0}` is absent, `{non-NULL, 0}` is present and empty. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_str {
    /// First byte.
    pub ptr: *const u8,
    /// How many.
    pub len: usize,
}

/// A header; host to plugin, names are in lower case. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_header {
    /// Name.
    pub name: velro_str,
    /// Value; host to plugin, bytes that are not UTF-8 have been replaced.
    pub value: velro_str,
}

/// One call: the job, its saved state and what happened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_job {
    /// Size of this struct as the host knows it.
    pub struct_size: u32,
    /// VELRO_EV_*; 0 in `quote`.
    pub event: u32,
    /// The attempt's id; stable over restarts.
    pub id: velro_str,
    /// The provider's own name of the model.
    pub model: velro_str,
    /// The validated input in the provider's terms: a JSON object, defaults applied.
    pub params_json: velro_str,
    /// What the last step returned; absent before the first that did. Any bytes.
    pub state: velro_str,
    /// Stable within one attempt.
    pub idempotency_key: velro_str,
    /// Where the provider may report the end; absent: poll.
    pub webhook_url: velro_str,
    /// Unix time in milliseconds. Plugins have no clock of their own.
    pub now_ms: u64,
    /// When the host gives up, Unix time in milliseconds.
    pub deadline_ms: u64,
    /// 1 for the first attempt of a generation.
    pub attempt: u32,
    /// Steps this attempt has taken so far.
    pub steps: u32,
    /// HTTP: status. Webhook: 200.
    pub http_status: u32,
    /// FAILED: VELRO_TE_*.
    pub transport_error: u32,
    /// HTTP, WEBHOOK: headers.
    pub headers: *const velro_header,
    /// How many.
    pub header_count: usize,
    /// HTTP, WEBHOOK: the whole body. Any bytes.
    pub body: velro_str,
}

/// A webhook that has not been matched to a job. Its signature has been checked by the host.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_hook {
    /// Size of this struct as the host knows it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The raw query, without the question mark.
    pub query: velro_str,
    /// Headers.
    pub headers: *const velro_header,
    /// How many.
    pub header_count: usize,
    /// The whole body.
    pub body: velro_str,
}

/// What the host does next. Zero what does not apply.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_action {
    /// Size of this struct as the plugin knows it.
    pub struct_size: u32,
    /// VELRO_ACT_*.
    pub kind: u32,
    /// New saved state; absent: unchanged. At most 64 KiB.
    pub state: velro_str,
    /// The provider's own job id. The first step after a paid submit must name it, unless it ends the job: it is the
    /// host's only proof that the job was accepted.
    pub remote_id: velro_str,
    /// `{"permille":500,"queue_position":3,"message":"..."}`, all optional.
    pub progress_json: velro_str,
    /// HTTP: VELRO_GET ...
    pub method: u32,
    /// HTTP: VELRO_FX_*.
    pub effect: u32,
    /// VELRO_AF_*.
    pub flags: u32,
    /// HTTP: 0 takes the host's default.
    pub timeout_ms: u32,
    /// HTTP: `{{secret:NAME}}` is allowed in the query and in header values.
    pub url: velro_str,
    /// HTTP: request headers.
    pub headers: *const velro_header,
    /// How many.
    pub header_count: usize,
    /// HTTP: request body; empty or absent for none.
    pub body: velro_str,
    /// WAIT: how long. FAIL: earliest next try. In milliseconds.
    pub wait_ms: u64,
    /// DONE: see VELRO_ACT_DONE.
    pub data_json: velro_str,
    /// FAIL: VELRO_ERR_*.
    pub error_kind: u32,
    /// FAIL: VELRO_RETRY_*. After a paid submit was accepted: whether another provider may do the job.
    pub retry: u32,
    /// FAIL: the provider's own code, short and stable.
    pub error_code: velro_str,
    /// FAIL: one sentence for the user; no secret, no internal text.
    pub message: velro_str,
}

/// Callbacks of one call: valid until the plugin function returns, on the calling thread only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_out {
    /// Size of this struct as the host knows it.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// `step`: the action. Exactly once.
    pub emit: Option<unsafe extern "C" fn(out: *mut velro_out, action: *const velro_action)>,
    /// Documents (`manifest`, `quote`, `webhook`): appends JSON text.
    pub write: Option<unsafe extern "C" fn(out: *mut velro_out, text: velro_str)>,
    /// Describes a fault before the function returns its code.
    pub fault: Option<unsafe extern "C" fn(out: *mut velro_out, code: i32, message: velro_str)>,
    /// A line for the host's log: level 1 (error) to 5 (trace). At most 20 of one call are kept.
    pub log: Option<unsafe extern "C" fn(out: *mut velro_out, level: u32, message: velro_str)>,
}

/// Services of the host: valid for the life of the process, callable from any thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_host {
    /// Size of this struct as the host knows it.
    pub struct_size: u32,
    /// The host's minor.
    pub abi_minor: u32,
    /// Name and version of the host, for diagnostics.
    pub version: velro_str,
    /// Looks up a JSON pointer. Writes the raw JSON text of the value (a string with its quotes) into `*value`, borrowed
    /// from `doc`. Answers 1 for found, 0 for absent, -1 when `doc` is not JSON.
    pub json_raw: Option<unsafe extern "C" fn(doc: velro_str, pointer: *const c_char, value: *mut velro_str) -> i32>,
    /// The same, decoded: copies at most `cap` bytes of the string (or of the raw text of another value) to `buf` and
    /// answers its whole length; -1 when it is absent or `doc` is not JSON. Does not NUL-terminate.
    pub json_text:
        Option<unsafe extern "C" fn(doc: velro_str, pointer: *const c_char, buf: *mut u8, cap: usize) -> isize>,
}

/// The functions of a plugin, in static memory of the library. `self` is what `create` made (NULL without it).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_plugin {
    /// Size of this struct as the plugin knows it.
    pub struct_size: u32,
    /// VELRO_F_*.
    pub flags: u32,
    /// Name, for people.
    pub name: velro_str,
    /// Version, for people.
    pub version: velro_str,
    /// Makes an instance for one configuration (a JSON object). May be called several times. Optional.
    pub create:
        Option<unsafe extern "C" fn(config_json: velro_str, out: *mut velro_out, self_: *mut *mut c_void) -> i32>,
    /// Called once for every successful `create`, after the last call on that instance returned. Optional.
    pub destroy: Option<unsafe extern "C" fn(self_: *mut c_void)>,
    /// Writes the manifest.
    pub manifest: Option<unsafe extern "C" fn(self_: *mut c_void, out: *mut velro_out) -> i32>,
    /// The state machine: emits the next action.
    pub step: Option<unsafe extern "C" fn(self_: *mut c_void, job: *const velro_job, out: *mut velro_out) -> i32>,
    /// Writes what the provider will bill for a call, `{"usd_micros":..,"unit":"..","units_milli":..}` or `null`. Optional.
    pub quote: Option<unsafe extern "C" fn(self_: *mut c_void, job: *const velro_job, out: *mut velro_out) -> i32>,
    /// Writes which job a webhook is about: `{"remote":"id"}`, `{"job":"id"}` or `"ignore"`. Optional.
    pub webhook: Option<unsafe extern "C" fn(self_: *mut c_void, hook: *const velro_hook, out: *mut velro_out) -> i32>,
}

/// Export 1, `velro_plugin_abi_v1`: plain data that the host reads from the file before it loads it. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct velro_abi_note {
    /// `VELROPLG`.
    pub magic: [u8; 8],
    /// The version the plugin was built with.
    pub major: u32,
    /// The version the plugin was built with.
    pub minor: u32,
    /// The oldest minor of the host it can live with.
    pub min_host_minor: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: both hold pointers to static memory that nobody writes to.
unsafe impl Sync for velro_plugin {}
// SAFETY: as above.
unsafe impl Sync for velro_host {}

/// A struct that begins with `struct_size` and for which all zeroes is a valid value.
///
/// # Safety
/// The implementor is `repr(C)`, begins with a `u32` size, and consists of integers, pointers and optional functions.
pub unsafe trait Sized32: Copy {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_job {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_hook {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_action {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_out {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_host {}
// SAFETY: see the definitions above.
unsafe impl Sized32 for velro_plugin {}

/// Reads a struct of another version: as much of it as its writer and we both know, zero for the rest.
///
/// # Safety
/// `from` is not null, aligned, and its first `struct_size` bytes are readable.
pub unsafe fn read_prefix<T: Sized32>(from: *const T) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: the caller vouches for the size field and for as many bytes as it says; the copy is no longer than either.
    unsafe {
        // Whole words only, so that no half of a pointer is read.
        let known = (from.cast::<u32>().read() as usize).min(size_of::<T>()) & !7;
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        // SAFETY: all zeroes is valid for `T`, and every byte copied over it came from a `T`.
        copy.assume_init()
    }
}

impl velro_abi_note {
    /// The note of a plugin that is built with this crate.
    pub const fn current(min_host_minor: u32) -> Self {
        velro_abi_note {
            magic: VELRO_MAGIC,
            major: VELRO_ABI_MAJOR,
            minor: VELRO_ABI_MINOR,
            min_host_minor,
            reserved: 0,
        }
    }
}

impl velro_str {
    /// `{NULL, 0}`.
    pub const ABSENT: velro_str = velro_str {
        ptr: std::ptr::null(),
        len: 0,
    };

    /// Borrows bytes. The pointer of an empty slice is not null, so that it reads as present.
    pub const fn of(bytes: &[u8]) -> Self {
        velro_str {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// Borrows bytes that may be absent.
    pub fn maybe(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(velro_str::ABSENT, velro_str::of)
    }

    /// The bytes; `None` when absent.
    ///
    /// # Safety
    /// A pointer that is not null names `len` readable bytes that live and stay as they are for `'a`.
    pub unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        if self.ptr.is_null() || self.len > isize::MAX as usize {
            return None;
        }
        // SAFETY: the caller's promise; the length fits, as just checked.
        Some(unsafe { std::slice::from_raw_parts(self.ptr, self.len) })
    }
}

/// Sizes and places of a 64-bit host. A change here breaks every plugin that was ever built.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<velro_str>() == 16 && size_of::<velro_header>() == 32 && size_of::<velro_abi_note>() == 24);
    assert!(offset_of!(velro_job, id) == 8 && offset_of!(velro_job, now_ms) == 104);
    assert!(offset_of!(velro_job, headers) == 136 && size_of::<velro_job>() == 168);
    assert!(offset_of!(velro_hook, query) == 8 && size_of::<velro_hook>() == 56);
    assert!(offset_of!(velro_action, state) == 8 && offset_of!(velro_action, method) == 56);
    assert!(offset_of!(velro_action, url) == 72 && offset_of!(velro_action, wait_ms) == 120);
    assert!(offset_of!(velro_action, error_code) == 152 && size_of::<velro_action>() == 184);
    assert!(offset_of!(velro_out, emit) == 8 && size_of::<velro_out>() == 40);
    assert!(offset_of!(velro_host, json_raw) == 24 && size_of::<velro_host>() == 40);
    assert!(offset_of!(velro_plugin, create) == 40 && size_of::<velro_plugin>() == 88);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A hook as a newer host might write it.
    #[repr(C)]
    struct Longer {
        hook: velro_hook,
        more: u64,
    }

    fn hook(struct_size: u32) -> velro_hook {
        velro_hook {
            struct_size,
            reserved: 7,
            query: velro_str::of(b"a=1"),
            headers: std::ptr::null(),
            header_count: 3,
            body: velro_str::of(b"body"),
        }
    }

    #[test]
    fn a_longer_struct_is_read_up_to_what_we_know() {
        let longer = Longer {
            hook: hook(size_of::<Longer>() as u32),
            more: u64::MAX,
        };
        // SAFETY: the struct is as long as it says.
        let read = unsafe { read_prefix(&raw const longer.hook) };
        assert_eq!((read.reserved, read.header_count, read.body.len), (7, 3, 4));
        assert_eq!(longer.more, u64::MAX);
    }

    #[test]
    fn a_shorter_struct_is_read_up_to_where_it_ends() {
        let short = hook(std::mem::offset_of!(velro_hook, header_count) as u32);
        // SAFETY: the struct is longer than it says.
        let read = unsafe { read_prefix(&raw const short) };
        assert_eq!((read.reserved, read.query.len), (7, 3));
        assert_eq!((read.header_count, read.body.len), (0, 0), "past its end");
        assert!(read.body.ptr.is_null());
    }

    #[test]
    fn absent_and_empty_differ() {
        // SAFETY: both name no byte that is not theirs.
        unsafe {
            assert_eq!(velro_str::ABSENT.bytes(), None);
            assert_eq!(velro_str::of(b"").bytes(), Some(&b""[..]));
        }
    }
}
