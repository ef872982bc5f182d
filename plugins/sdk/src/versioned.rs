//! Saved state that says which version of the code wrote it: state outlives the code, and a library that is taken back must not
//! misread what a newer one stored.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Fault, FaultCode, Job, Step};

/// The stored form: the version beside the state's own fields.
#[derive(Serialize, Deserialize)]
struct Versioned<S> {
    v: u32,
    #[serde(flatten)]
    state: S,
}

impl Step {
    /// Stores this state, which must be an object in JSON, with the version of the code that writes it.
    #[must_use]
    pub fn versioned_state(self, version: u32, state: &impl Serialize) -> Self {
        self.state_json(&Versioned { v: version, state })
    }
}

impl Job<'_> {
    /// The state that [`Step::versioned_state`] stored; `None` before the first step that did. One of a version above
    /// `newest`, the newest that this code reads, is a fault ([`FaultCode::BadState`]), and so is one that cannot be read.
    pub fn versioned_state<S: DeserializeOwned>(&self, newest: u32) -> Result<Option<S>, Fault> {
        match self.state_json::<Versioned<S>>()? {
            Some(saved) if saved.v > newest => Err(Fault::new(
                FaultCode::BadState,
                format!("state of version {}, this code reads up to {newest}", saved.v),
            )),
            saved => Ok(saved.map(|saved| saved.state)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Params;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "stage", rename_all = "snake_case")]
    enum State {
        Submitting,
        Accepted { id: String },
    }

    fn job(state: &[u8]) -> Job<'_> {
        Job {
            id: "a",
            model: "m",
            params: Params::new("{}"),
            state,
            idempotency_key: "a",
            webhook_url: None,
            now_ms: 0,
            deadline_ms: 0,
            attempt: 1,
            steps: 0,
        }
    }

    #[test]
    fn what_is_stored_is_read_again_and_what_is_newer_is_not_misread() {
        assert_eq!(job(b"").versioned_state::<State>(1).unwrap(), None);
        let state = State::Accepted { id: "7".into() };
        let stored = Step::wait(0).versioned_state(2, &state).state.unwrap();
        assert_eq!(stored, br#"{"v":2,"stage":"accepted","id":"7"}"#);
        assert_eq!(job(&stored).versioned_state(2).unwrap(), Some(state));
        assert_eq!(
            job(br#"{"v":1,"stage":"submitting"}"#).versioned_state(2).unwrap(),
            Some(State::Submitting)
        );
        let fault = job(&stored).versioned_state::<State>(1).unwrap_err();
        assert_eq!(fault.code, FaultCode::BadState);
        assert_eq!(fault.message, "state of version 2, this code reads up to 1");
    }
}
