//! A provider that works, or misbehaves where its configuration says so: `{"panic": "step"}` panics in `step`, and so on for
//! every function; `{"spin": "step"}` never returns from it. Without either it draws one fixed pixel.

#![allow(clippy::panic, reason = "misbehaving is what it is for")]

use serde_json::Value;
use velro_plugin::{
    Event, Fault, FaultCode, HookTarget, Job, Manifest, Output, Provider, Quote, Step, Webhook, export_provider,
};

/// A picture of one pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What goes wrong, and where.
struct Zoo {
    panics: String,
    spins: String,
    /// Steps before it delivers; every one waits for this long.
    waits: u64,
    wait_ms: u64,
}

impl Zoo {
    fn new(config: &[u8]) -> Result<Self, Fault> {
        let config: Value =
            serde_json::from_slice(config).map_err(|e| Fault::new(FaultCode::BadInput, format!("config: {e}")))?;
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        if config["refuse"] == true {
            return Err(Fault::new(FaultCode::BadInput, "config: `refuse` must not be true"));
        }
        let zoo = Zoo {
            panics: text("panic"),
            spins: text("spin"),
            waits: config["waits"].as_u64().unwrap_or(0),
            wait_ms: config["wait_ms"].as_u64().unwrap_or(100),
        };
        zoo.misbehave("create");
        Ok(zoo)
    }

    fn misbehave(&self, place: &str) {
        if self.panics == place {
            panic!("the zoo panics in {place}");
        }
        if self.spins == place {
            loop {
                std::hint::spin_loop();
            }
        }
    }
}

impl Drop for Zoo {
    fn drop(&mut self) {
        self.misbehave("destroy");
    }
}

impl Provider for Zoo {
    fn manifest(&self) -> Result<Manifest, Fault> {
        self.misbehave("manifest");
        Ok(Manifest::new("zoo", env!("CARGO_PKG_VERSION")).host("zoo.example"))
    }

    fn quote(&self, _job: &Job<'_>) -> Result<Option<Quote>, Fault> {
        self.misbehave("quote");
        Ok(None)
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        self.misbehave("step");
        if matches!(event, Event::Timer) {
            self.misbehave("timer");
        }
        let seen = job.state_json::<u64>()?.unwrap_or(0);
        if seen < self.waits {
            return Ok(Step::wait(self.wait_ms).state_json(&(seen + 1)));
        }
        Ok(Step::done(vec![Output::url("image", PIXEL)]))
    }

    fn webhook(&self, _hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        self.misbehave("webhook");
        Ok(HookTarget::Ignore)
    }
}

export_provider!(Zoo, Zoo::new);
