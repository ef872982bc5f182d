//! The FAL provider and the upstream client against the simulator, with the host reduced to a loop. Both FAL providers
//! are driven by it, the built-in one and the declared one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use velro::clock;
use velro::config::{FalConfig, Secret};
use velro::provider::LoadedProvider;
use velro::provider::fal::Fal;
use velro::upstream::{Upstream, WebhookVerifier};
use velro_plugin::{Action, Event, Failure, Job, Outcome, Params, Provider, Response};

use crate::fal_sim::{Action as Fault, FalSim, Options, Settings};

/// A model the simulator has.
pub const FLUX: &str = "fal-ai/flux-pro/v1.1-ultra";
/// Real time between two polls; the provider's own clock moves as far as it asked for.
const PAUSE: Duration = Duration::from_millis(30);

/// A simulator, and a provider that talks to it.
pub struct Bench {
    pub sim: FalSim,
    pub upstream: Upstream,
    pub provider: LoadedProvider,
}

impl Bench {
    /// With the built-in provider.
    pub async fn start(settings: Settings) -> Self {
        Bench::with(settings, |sim| {
            Arc::new(Fal::new(&FalConfig {
                key: None,
                queue_url: sim.base_url.clone(),
                run_url: sim.run_url(),
                rest_url: sim.base_url.clone(),
            }))
        })
        .await
    }

    /// With a provider that is made for the simulator's address.
    pub async fn with(settings: Settings, provider: impl FnOnce(&FalSim) -> Arc<dyn Provider>) -> Self {
        let sim = FalSim::start(Options { port: 0, settings }).await.unwrap();
        let provider = LoadedProvider {
            secrets: HashMap::from([("FAL_KEY".to_owned(), Secret::new("id:secret"))]),
            timeout_ms: 400,
            ..LoadedProvider::of("fal", provider(&sim))
        };
        let upstream = Upstream::with(true, 1 << 20, Duration::from_secs(5)).unwrap();
        Bench {
            sim,
            upstream,
            provider,
        }
    }

    /// Runs one job to its end; cancels it after so many waits.
    pub async fn run(
        &self,
        model: &str,
        input: &serde_json::Value,
        cancel_after: Option<u32>,
    ) -> Result<Outcome, Failure> {
        self.run_hooked(model, input, cancel_after, None).await
    }

    /// The same, with webhooks.
    pub async fn run_hooked(
        &self,
        model: &str,
        input: &serde_json::Value,
        cancel_after: Option<u32>,
        hooks: Option<&Hooks>,
    ) -> Result<Outcome, Failure> {
        let input = input.to_string();
        let (mut state, mut now_ms, mut waits, mut event) = (Vec::new(), 1_000_u64, 0, Happened::Start);
        for _ in 0..500 {
            let headers = match &event {
                Happened::Answer(answer) => answer.header_refs(),
                _ => Vec::new(),
            };
            let job = Job {
                id: "attempt",
                model,
                params: Params::new(&input),
                state: &state,
                idempotency_key: "attempt",
                webhook_url: hooks.map(|h| h.url.as_str()),
                now_ms,
                deadline_ms: 600_000,
                attempt: 1,
                steps: 0,
            };
            let step = match &event {
                Happened::Start => self.provider.provider.step(&job, Event::Start),
                Happened::Timer => self.provider.provider.step(&job, Event::Timer),
                Happened::Cancel => self.provider.provider.step(&job, Event::Cancel),
                Happened::Answer(answer) => {
                    let response = answer.response(&headers);
                    self.provider.provider.step(&job, Event::Http(response))
                }
                Happened::Webhook(body) => {
                    let response = Response {
                        status: 200,
                        headers: &[],
                        body,
                    };
                    self.provider.provider.step(&job, Event::Webhook(response))
                }
                Happened::Failed(transport) => self.provider.provider.step(&job, Event::Failed(*transport)),
            };
            let step = step.unwrap();
            state = step.state.unwrap_or(state);
            event = match step.action {
                Action::Done(outcome) => return Ok(outcome),
                Action::Fail(failure) => return Err(failure),
                Action::Wait { ms } => {
                    tokio::time::sleep(PAUSE).await;
                    waits += 1;
                    match hooks {
                        // A long wait is one for the webhook.
                        Some(hooks) if ms > 100_000 => match hooks.next(self).await {
                            Some(body) => Happened::Webhook(body),
                            None => {
                                now_ms += ms;
                                Happened::Timer
                            }
                        },
                        _ => {
                            now_ms += ms;
                            if Some(waits) == cancel_after {
                                Happened::Cancel
                            } else {
                                Happened::Timer
                            }
                        }
                    }
                }
                Action::Http(request) => match self.upstream.perform(&self.provider, &request).await {
                    Ok(answer) => Happened::Answer(answer),
                    Err(transport) => Happened::Failed(transport),
                },
                Action::Emit(_) => panic!("FAL does not stream"),
            };
        }
        panic!("the job never ends");
    }

    /// Two pictures.
    pub async fn picture(&self) -> Result<Outcome, Failure> {
        self.run(FLUX, &json!({"prompt": "a fox", "num_images": 2}), None).await
    }

    /// How many jobs the simulator accepted.
    pub fn bought(&self) -> usize {
        assert_eq!(self.sim.handle().bought_twice(), []);
        self.sim.handle().requests().len()
    }
}

enum Happened {
    Start,
    Timer,
    Cancel,
    Webhook(Vec<u8>),
    Answer(velro::upstream::Answer),
    Failed(velro_plugin::Transport),
}

/// Receives webhooks, and passes on what is signed.
pub struct Hooks {
    pub url: String,
    verifier: WebhookVerifier,
    arrived: Mutex<mpsc::Receiver<(HeaderMap, Vec<u8>)>>,
    pub refused: AtomicU32,
}

impl Hooks {
    pub async fn start(bench: &Bench) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (send, arrived) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hook = receive(stream).await;
                if send.send(hook).await.is_err() {
                    return;
                }
            }
        });
        Hooks {
            url,
            verifier: WebhookVerifier::new(bench.upstream.clone()),
            arrived: Mutex::new(arrived),
            refused: AtomicU32::new(0),
        }
    }

    /// The next signed webhook; `None` when there is none for two seconds.
    async fn next(&self, bench: &Bench) -> Option<Vec<u8>> {
        let mut arrived = self.arrived.lock().await;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(2), arrived.recv()).await;
            let (headers, body) = next.ok().flatten()?;
            match self
                .verifier
                .verify(&bench.provider, &headers, &body, clock::now())
                .await
            {
                Ok(()) => return Some(body),
                Err(_) => self.refused.fetch_add(1, Ordering::SeqCst),
            };
        }
    }
}

/// One request, answered with 200.
async fn receive(mut stream: TcpStream) -> (HeaderMap, Vec<u8>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let headers: HeaderMap = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
            if bytes.len() == end + 4 + length {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                return (headers, bytes.split_off(end + 4));
            }
        }
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "half a webhook");
        bytes.extend_from_slice(&buffer[..n]);
    }
}

/// A fault by its name.
pub fn parse(fault: &str) -> Fault {
    fault.parse().unwrap()
}
