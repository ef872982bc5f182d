//! A provider that works, or misbehaves where its configuration says so: `{"panic": "step"}` panics in `step`, and so on for
//! every function; `{"spin": "step"}` never returns from it. `{"submit": true}` asks for a paid request with the input as it is and
//! polls it, as most providers do. Without any of them it draws one fixed pixel.

#![allow(clippy::panic, reason = "misbehaving is what it is for")]

use serde_json::Value;
use velro_plugin::{
    Event, Fault, FaultCode, HookTarget, HttpRequest, Job, Manifest, Output, Provider, Quote, Step, Webhook,
    export_provider,
};

/// A picture of one pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What goes wrong, and where.
pub struct Zoo {
    panics: String,
    spins: String,
    /// Steps before it delivers; every one waits for this long.
    waits: u64,
    wait_ms: u64,
    submits: bool,
    url: String,
    host: String,
}

impl Zoo {
    /// Reads what shall go wrong.
    ///
    /// # Errors
    /// When the configuration is not JSON, or says so.
    pub fn new(config: &[u8]) -> Result<Self, Fault> {
        let config: Value =
            serde_json::from_slice(config).map_err(|e| Fault::new(FaultCode::BadInput, format!("config: {e}")))?;
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        if config["refuse"] == true {
            return Err(Fault::new(FaultCode::BadInput, "config: `refuse` must not be true"));
        }
        let base = config["base_url"].as_str().unwrap_or("https://zoo.example");
        let zoo = Zoo {
            panics: text("panic"),
            spins: text("spin"),
            waits: config["waits"].as_u64().unwrap_or(0),
            wait_ms: config["wait_ms"].as_u64().unwrap_or(100),
            submits: config["submit"] == true,
            url: format!("{base}/v1/jobs"),
            host: base.split("//").nth(1).unwrap_or_default().to_owned(),
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
        Ok(Manifest::new("zoo", env!("CARGO_PKG_VERSION")).host(self.host.as_str()))
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
        if self.submits {
            return queued(&self.url, job, event);
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

/// A provider with a queue, at its plainest.
fn queued(url: &str, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
    Ok(match event {
        Event::Start => HttpRequest::submit(url)
            .header("x-zoo", "a header as most APIs want one")
            .json_body(job.params.raw())
            .into(),
        Event::Http(answer) if answer.ok() => {
            let answer = answer.json()?;
            let id = answer["id"].as_str().unwrap_or_default();
            Step::wait(1_000).remote_id(id).state_json(&id)
        }
        // Wrong for a 5xx: it may have been bought. The host knows better.
        Event::Http(answer) => answer.failure("The provider refused").into(),
        _ => HttpRequest::get(format!("{url}/{}", job.state_json::<String>()?.unwrap_or_default())).into(),
    })
}

export_provider!(Zoo, Zoo::new);
