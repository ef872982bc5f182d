//! A malfunction of the provider code itself, as opposed to the failure of a job.

use std::fmt;

/// Why a provider function could not answer. A *job's* failure is [`crate::Action::Fail`], never a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The class of the malfunction.
    pub code: FaultCode,
    /// For the operator; never shown to a client.
    pub message: String,
}

/// Classes of malfunction; the numbers of the C ABI are in `abi.md` §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCode {
    /// This event, model or function is not known to the provider.
    Unsupported,
    /// Parameters or configuration the provider cannot read.
    BadInput,
    /// Saved state of an incompatible version.
    BadState,
    /// The provider's API answered something that cannot be parsed.
    BadResponse,
    /// Anything else.
    Internal,
    /// A caught panic.
    Panic,
    /// The function returned without an action.
    NoAction,
}

impl Fault {
    /// A fault with a code and a message for the operator.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Fault {
            code,
            message: message.into(),
        }
    }

    /// The provider does not know this event or function.
    pub fn unsupported(what: &str) -> Self {
        Fault::new(FaultCode::Unsupported, format!("{what} is not supported"))
    }

    /// The provider's API answered something that cannot be parsed.
    pub fn bad_response(message: impl Into<String>) -> Self {
        Fault::new(FaultCode::BadResponse, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}
