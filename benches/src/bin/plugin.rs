//! What a call of a provider costs: linked in, and out of a library. The same code both times; figures of one run, in turns, to be
//! read as ratios.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use benches::cpu::{Whose, time};
use serde_json::{Map, Value, json};
use velro::plugin::{Foreign, Plugins, read};
use velro_plugin::{Event, Header, Job, Params, Provider, Response, Step};
use velro_zoo::Zoo;

/// Rounds; the median counts.
const ROUNDS: usize = 41;
/// Calls of one round.
const CALLS: u32 = 2_000;

/// A parameter set as a picture has it: 752 bytes of JSON.
fn params() -> String {
    json!({
        "prompt": "a lighthouse on a cliff at dusk, long exposure, heavy sea, warm light in the windows, ".repeat(6),
        "image_size": "landscape_16_9", "num_images": 1, "seed": 4711, "guidance_scale": 3.5, "num_inference_steps": 28,
        "enable_safety_checker": true, "output_format": "png", "sync_mode": false, "acceleration": "none",
        "safety_tolerance": "2", "raw": false
    })
    .to_string()
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    /// Build the paid request.
    Start,
    /// Read the answer to it: 311 bytes, six headers.
    Answer,
    /// Build the request of a poll.
    Poll,
}

const HEADERS: [Header<'static>; 6] = [
    Header {
        name: "content-type",
        value: "application/json",
    },
    Header {
        name: "date",
        value: "Wed, 25 Nov 2026 20:00:00 GMT",
    },
    Header {
        name: "server",
        value: "zoo",
    },
    Header {
        name: "x-request-id",
        value: "0197c3d2-5b1e-7a31-9c55-0242ac120002",
    },
    Header {
        name: "cache-control",
        value: "no-store",
    },
    Header {
        name: "content-length",
        value: "311",
    },
];

fn ask(provider: &dyn Provider, question: Question, params: &str, body: &[u8]) -> Result<Step> {
    let job = Job {
        id: "0197c3d2-5b1e-7a31-9c55-0242ac120002",
        model: "zoo/pixel",
        params: Params::new(params),
        state: match question {
            Question::Poll => b"\"job-1\"",
            _ => b"",
        },
        idempotency_key: "0197c3d2-5b1e-7a31-9c55-0242ac120002",
        webhook_url: None,
        now_ms: 1_795_000_000_000,
        deadline_ms: 1_795_000_600_000,
        attempt: 1,
        steps: 1,
    };
    let event = match question {
        Question::Start => Event::Start,
        Question::Answer => Event::Http(Response {
            status: 201,
            headers: &HEADERS,
            body,
        }),
        Question::Poll => Event::Timer,
    };
    provider.step(&job, event).map_err(|fault| anyhow!("{fault}"))
}

/// Time and CPU of one call, in nanoseconds.
fn round(provider: &dyn Provider, question: Question, params: &str, body: &[u8]) -> Result<(f64, f64)> {
    let (cpu, began) = (time(Whose::Own)?, Instant::now());
    for _ in 0..CALLS {
        std::hint::black_box(ask(provider, question, params, body)?);
    }
    let each = |spent: Duration| spent.as_secs_f64() * 1e9 / f64::from(CALLS);
    Ok((each(began.elapsed()), each(time(Whose::Own)?.saturating_sub(cpu))))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let config: Map<String, Value> = Map::from_iter([("submit".to_owned(), json!(true))]);
    let own = std::env::current_exe()?;
    let file = own.with_file_name("libvelro_zoo.so");
    let verified =
        read(&file).with_context(|| format!("cargo build --release -p velro-zoo makes {}", file.display()))?;
    let staging = tempfile::tempdir()?;
    let library = Plugins::new(staging.path()).load(&verified)?;
    let foreign = Foreign::create(Arc::clone(&library), "zoo", &config)?;
    let linked = Zoo::new(Value::Object(config).to_string().as_bytes()).map_err(|fault| anyhow!("{fault}"))?;
    let (params, body) = (
        params(),
        json!({ "id": "job-1", "status": "queued", "urls": { "get": "x".repeat(250) } }).to_string(),
    );
    println!("|  | linked in ns | library ns | ratio | added ns | added CPU ns |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, question) in [
        ("submit", Question::Start),
        ("answer", Question::Answer),
        ("poll", Question::Poll),
    ] {
        let (mut plain, mut over, mut ratio, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (a, a_cpu) = round(&linked, question, &params, body.as_bytes())?;
            let (b, b_cpu) = round(&foreign, question, &params, body.as_bytes())?;
            plain.push(a);
            over.push(b);
            ratio.push(b / a);
            cpu.push(b_cpu - a_cpu);
        }
        let (plain, over) = (median(plain), median(over));
        println!(
            "| {name} | {plain:.0} | {over:.0} | {:.1} | {:.0} | {:.0} |",
            median(ratio),
            over - plain,
            median(cpu)
        );
    }
    Ok(())
}
