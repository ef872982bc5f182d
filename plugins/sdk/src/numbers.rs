//! What the words of the trait are called in numbers at the C boundary; both sides read this one table.

use crate::abi::*;
use crate::{Effect, ErrorKind, FaultCode, Method, Retry, Transport};

/// Gives a fieldless enum its numbers, both ways.
macro_rules! numbered {
    ($type:ty as $number:ty { $($variant:ident = $constant:ident),+ $(,)? }) => {
        impl $type {
            /// Its number at the C boundary.
            pub const fn number(self) -> $number {
                match self {
                    $(<$type>::$variant => $constant,)+
                }
            }

            /// What a number at the C boundary means; `None` for one that this version does not know.
            pub const fn from_number(number: $number) -> Option<Self> {
                match number {
                    $($constant => Some(<$type>::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

numbered!(Method as u32 {
    Get = VELRO_GET,
    Post = VELRO_POST,
    Put = VELRO_PUT,
    Patch = VELRO_PATCH,
    Delete = VELRO_DELETE,
    Head = VELRO_HEAD,
});

numbered!(Effect as u32 {
    Read = VELRO_FX_READ,
    Submit = VELRO_FX_SUBMIT,
    SubmitIdempotent = VELRO_FX_SUBMIT_IDEMPOTENT,
    Write = VELRO_FX_WRITE,
});

numbered!(ErrorKind as u32 {
    InvalidInput = VELRO_ERR_INVALID_INPUT,
    Auth = VELRO_ERR_AUTH,
    Quota = VELRO_ERR_QUOTA,
    RateLimited = VELRO_ERR_RATE_LIMITED,
    ContentPolicy = VELRO_ERR_CONTENT_POLICY,
    NotFound = VELRO_ERR_NOT_FOUND,
    Unavailable = VELRO_ERR_UNAVAILABLE,
    Timeout = VELRO_ERR_TIMEOUT,
    Cancelled = VELRO_ERR_CANCELLED,
    BadResponse = VELRO_ERR_BAD_RESPONSE,
    UnknownOutcome = VELRO_ERR_UNKNOWN_OUTCOME,
    Upstream = VELRO_ERR_UPSTREAM,
});

numbered!(Retry as u32 {
    Never = VELRO_RETRY_NEVER,
    SameProvider = VELRO_RETRY_SAME,
    OtherProvider = VELRO_RETRY_OTHER,
});

numbered!(Transport as u32 {
    NotSent = VELRO_TE_NOT_SENT,
    Timeout = VELRO_TE_TIMEOUT,
    Reset = VELRO_TE_RESET,
    BodyTooLarge = VELRO_TE_BODY_TOO_LARGE,
    CircuitOpen = VELRO_TE_CIRCUIT_OPEN,
    HostDenied = VELRO_TE_HOST_DENIED,
});

numbered!(FaultCode as i32 {
    Unsupported = VELRO_E_UNSUPPORTED,
    BadInput = VELRO_E_BAD_INPUT,
    BadState = VELRO_E_BAD_STATE,
    BadResponse = VELRO_E_BAD_RESPONSE,
    Internal = VELRO_E_INTERNAL,
    Panic = VELRO_E_PANIC,
    NoAction = VELRO_E_NO_ACTION,
});
