//! The built-in FAL provider and the upstream client against the simulator, with the host reduced to a loop: every
//! fault at every point of a job. A job ends as it should, and nothing is ever bought twice.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::json;
use tests::fal_sim::{Action as Fault, FalSim, Options, Phase, Point, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use velro::clock;
use velro::config::{FalConfig, Secret};
use velro::provider::LoadedProvider;
use velro::provider::fal::Fal;
use velro::upstream::{DownloadError, Upstream, WebhookVerifier};
use velro_plugin::{Action, ErrorKind, Event, Failure, Job, Outcome, Params, Response, Source};

const FLUX: &str = "fal-ai/flux-pro/v1.1-ultra";
/// Real time between two polls; the provider's own clock moves as far as it asked for.
const PAUSE: Duration = Duration::from_millis(30);

struct Bench {
    sim: FalSim,
    upstream: Upstream,
    provider: LoadedProvider,
}

impl Bench {
    async fn start(settings: Settings) -> Self {
        let sim = FalSim::start(Options { port: 0, settings }).await.unwrap();
        let fal = Fal::new(&FalConfig {
            key: None,
            queue_url: sim.base_url.clone(),
            run_url: sim.run_url(),
            rest_url: sim.base_url.clone(),
        });
        let provider = LoadedProvider {
            secrets: HashMap::from([("FAL_KEY".to_owned(), Secret::new("id:secret"))]),
            timeout_ms: 400,
            ..LoadedProvider::of("fal", Arc::new(fal))
        };
        let upstream = Upstream::with(true, 1 << 20, Duration::from_secs(5)).unwrap();
        Bench {
            sim,
            upstream,
            provider,
        }
    }

    /// Runs one job to its end; cancels it after so many waits.
    async fn run(&self, model: &str, input: &serde_json::Value, cancel_after: Option<u32>) -> Result<Outcome, Failure> {
        self.run_hooked(model, input, cancel_after, None).await
    }

    async fn run_hooked(
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

    async fn picture(&self) -> Result<Outcome, Failure> {
        self.run(FLUX, &json!({"prompt": "a fox", "num_images": 2}), None).await
    }

    /// How many jobs the simulator accepted.
    fn bought(&self) -> usize {
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
struct Hooks {
    url: String,
    verifier: WebhookVerifier,
    arrived: Mutex<mpsc::Receiver<(HeaderMap, Vec<u8>)>>,
    refused: AtomicU32,
}

impl Hooks {
    async fn start(bench: &Bench) -> Self {
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

fn parse(fault: &str) -> Fault {
    fault.parse().unwrap()
}

#[tokio::test]
async fn pictures_and_clips_arrive() {
    let bench = Bench::start(Settings::default()).await;
    let outcome = bench.picture().await.unwrap();
    assert_eq!(outcome.outputs.len(), 2);
    assert_eq!(outcome.billed.unwrap().units_milli, 2_000);
    assert!(outcome.meta["seed"].is_u64());
    let clip = bench
        .run("fal-ai/veo3", &json!({"prompt": "a fox"}), None)
        .await
        .unwrap();
    assert_eq!(clip.outputs[0].kind, "video");

    let folder = tempfile::tempdir().unwrap();
    for output in outcome.outputs.iter().chain(&clip.outputs) {
        let Source::Url(url) = &output.source else {
            panic!("{output:?}")
        };
        let mut file = tokio::fs::File::create(folder.path().join("file")).await.unwrap();
        let file = bench
            .upstream
            .download(&bench.provider, url, 50 << 20, &mut file)
            .await
            .unwrap();
        assert!(file.bytes > 100);
    }
    let Source::Url(url) = &outcome.outputs[0].source else {
        panic!()
    };
    bench.sim.handle().fault(Point::Media, parse("half"), 1);
    let mut file = tokio::fs::File::create(folder.path().join("half")).await.unwrap();
    let error = bench
        .upstream
        .download(&bench.provider, url, 50 << 20, &mut file)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Retryable(_)), "{error}");
    bench.sim.handle().fault(Point::Media, parse("oversized:9000000"), 1);
    let error = bench
        .upstream
        .download(&bench.provider, url, 1 << 20, &mut file)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Permanent(_)), "{error}");
}

#[tokio::test]
async fn faults_of_the_submit() {
    for (fault, kind, bought) in [
        ("503", ErrorKind::UnknownOutcome, 0),
        ("500", ErrorKind::UnknownOutcome, 0),
        ("cut", ErrorKind::UnknownOutcome, 0),
        ("hang", ErrorKind::UnknownOutcome, 0),
        ("429", ErrorKind::RateLimited, 0),
        ("401", ErrorKind::Auth, 0),
        ("403", ErrorKind::Auth, 0),
        ("accept_then_503", ErrorKind::UnknownOutcome, 1),
        ("accept_then_cut", ErrorKind::UnknownOutcome, 1),
        ("accept_then_hang", ErrorKind::UnknownOutcome, 1),
        ("half", ErrorKind::UnknownOutcome, 1),
        ("garbage", ErrorKind::UnknownOutcome, 1),
        ("wrong_type", ErrorKind::UnknownOutcome, 1),
    ] {
        let bench = Bench::start(Settings::default()).await;
        bench.sim.handle().fault(Point::Submit, parse(fault), 1);
        let failure = bench.picture().await.unwrap_err();
        assert_eq!((failure.kind, bench.bought()), (kind, bought), "{fault}");
    }
    let bench = Bench::start(Settings::default()).await;
    bench.sim.handle().fault(Point::Submit, parse("slow:50"), 1);
    assert!(bench.picture().await.is_ok());
    bench.sim.handle().refuse_connections().await;
    assert_eq!(bench.picture().await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(bench.bought(), 1);
    let locked = Bench::start(Settings {
        balance_locked: true,
        ..Settings::default()
    });
    assert_eq!(locked.await.picture().await.unwrap_err().kind, ErrorKind::Quota);
}

#[tokio::test]
async fn faults_on_the_way_to_the_result() {
    let faults = [
        "500",
        "502",
        "503",
        "429",
        "404",
        "401",
        "cut",
        "hang",
        "accept_then_cut",
        "half",
        "garbage",
        "wrong_type",
        "slow:50",
    ];
    for point in [Point::Status, Point::Result] {
        for fault in faults {
            let bench = Bench::start(Settings::default()).await;
            bench.sim.handle().fault(point, parse(fault), 2);
            let outcome = bench.picture().await;
            let outcome = outcome.unwrap_or_else(|failure| panic!("{point:?} {fault}: {failure:?}"));
            assert_eq!((outcome.outputs.len(), bench.bought()), (2, 1), "{point:?} {fault}");
        }
    }
}

#[tokio::test]
async fn faults_of_the_job() {
    for hide_errors in [false, true] {
        for (fault, kind) in [
            ("fail", ErrorKind::Upstream),
            ("policy", ErrorKind::ContentPolicy),
            ("runner", ErrorKind::Upstream),
            ("error:generation_timeout", ErrorKind::Timeout),
            ("error:file_download_error", ErrorKind::InvalidInput),
            ("no_media", ErrorKind::BadResponse),
        ] {
            let bench = Bench::start(Settings {
                hide_errors,
                ..Settings::default()
            })
            .await;
            bench.sim.handle().fault(Point::Job, parse(fault), 1);
            let failure = bench.picture().await.unwrap_err();
            assert_eq!(
                (failure.kind, bench.bought()),
                (kind, 1),
                "{fault}, hidden {hide_errors}: {failure:?}"
            );
        }
    }
    let bench = Bench::start(Settings::default()).await;
    bench.sim.handle().fault(Point::Job, parse("fewer"), 1);
    assert_eq!(bench.picture().await.unwrap().outputs.len(), 1);
    let failure = bench
        .run(FLUX, &json!({"prompt": "a fox", "num_images": 9}), None)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ErrorKind::InvalidInput);
    assert!(
        failure.message.contains("`num_images` must be at most 4"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_cancel_ends_as_fal_says() {
    let input = json!({"prompt": "a fox"});
    let cancel = |bench: Bench| {
        let input = input.clone();
        async move {
            let result = bench.run(FLUX, &input, Some(2)).await;
            assert_eq!(bench.bought(), 1);
            (result, bench)
        }
    };
    // Running or waiting, and however the cancel's answer gets lost.
    for job in ["never", "queue_ms:60000"] {
        for fault in [None, Some("503"), Some("cut"), Some("accept_then_cut"), Some("garbage")] {
            let bench = Bench::start(Settings::default()).await;
            bench.sim.handle().fault(Point::Job, parse(job), 1);
            if let Some(fault) = fault {
                bench.sim.handle().fault(Point::Cancel, parse(fault), 1);
            }
            let (result, bench) = cancel(bench).await;
            assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled, "{job} {fault:?}");
            assert_eq!(bench.sim.handle().billed_milliunits(), 0);
        }
    }
    // A cancel that FAL only says it heard: the picture comes, and is paid.
    let bench = Bench::start(Settings {
        ignore_cancel: true,
        run_ms: 400,
        ..Settings::default()
    })
    .await;
    let (result, bench) = cancel(bench).await;
    assert_eq!(result.unwrap().outputs.len(), 1);
    assert_eq!(bench.sim.handle().requests()[0].phase, Phase::Completed);
}

/// The submit's answer is lost, but FAL has the job: its webhook finds it, a forged one does not.
#[tokio::test]
async fn a_webhook_resolves_a_lost_submit() {
    for fault in ["accept_then_cut", "accept_then_503", "half", "garbage"] {
        let bench = Bench::start(Settings::default()).await;
        let hooks = Hooks::start(&bench).await;
        bench.sim.handle().fault(Point::Submit, parse(fault), 1);
        let outcome = bench
            .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
            .await;
        let outcome = outcome.unwrap_or_else(|failure| panic!("{fault}: {failure:?}"));
        assert_eq!((outcome.outputs.len(), bench.bought()), (1, 1), "{fault}");
    }
    for (fault, refused) in [("bad_signature", 1), ("stale", 1), ("drop", 0)] {
        let bench = Bench::start(Settings::default()).await;
        let hooks = Hooks::start(&bench).await;
        bench.sim.handle().fault(Point::Submit, parse("accept_then_cut"), 1);
        bench.sim.handle().fault(Point::Webhook, parse(fault), 1);
        let failure = bench
            .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.kind, bench.bought()),
            (ErrorKind::UnknownOutcome, 1),
            "{fault}"
        );
        assert_eq!(hooks.refused.load(Ordering::SeqCst), refused, "{fault}");
    }
    // One that speaks too early is only a hint.
    let bench = Bench::start(Settings::default()).await;
    let hooks = Hooks::start(&bench).await;
    bench.sim.handle().fault(Point::Submit, parse("accept_then_cut"), 1);
    bench.sim.handle().fault(Point::Webhook, parse("lie"), 1);
    let outcome = bench
        .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
        .await;
    assert_eq!((outcome.unwrap().outputs.len(), bench.bought()), (1, 1));
}
