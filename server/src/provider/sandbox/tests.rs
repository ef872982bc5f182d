use super::*;
use velro_plugin::{Action, Params, Source};

fn job<'a>(model: &'a str, params: &'a str, state: &'a [u8], now_ms: u64) -> Job<'a> {
    Job {
        id: "job-1",
        model,
        params: Params::new(params),
        state,
        idempotency_key: "job-1",
        webhook_url: None,
        now_ms,
        deadline_ms: 100_000,
        attempt: 1,
        steps: 0,
    }
}

/// Runs to the end; answers the last step, the progress seen and the time it took.
fn run(model: &str, params: &str) -> (Step, Vec<u16>, u64) {
    let (mut state, mut now, mut seen) = (Vec::new(), 0, Vec::new());
    for turn in 0.. {
        let event = if turn == 0 { Event::Start } else { Event::Timer };
        let step = Sandbox.step(&job(model, params, &state, now), event).unwrap();
        seen.extend(step.progress.as_ref().and_then(|p| p.permille));
        state = step.state.clone().unwrap_or(state);
        match step.action {
            Action::Wait { ms } => now += ms,
            _ => return (step, seen, now),
        }
        assert!(turn < 1_000, "it never ends");
    }
    unreachable!()
}

fn urls(step: &Step) -> Vec<String> {
    let Action::Done(outcome) = &step.action else {
        panic!("{step:?}")
    };
    let urls = outcome.outputs.iter().map(|o| match &o.source {
        Source::Url(url) => url.clone(),
        other => panic!("{other:?}"),
    });
    urls.collect()
}

#[test]
fn delivers_what_was_ordered_after_the_latency() {
    let params =
        r#"{"prompt":"a red fox & a moon","image_size":"landscape_4_3","num_images":3,"seed":7,"latency_ms":4000}"#;
    let (step, seen, took) = run("sandbox/image", params);
    assert_eq!(took, 4_000);
    assert!(seen.len() >= 10 && seen.is_sorted() && seen[0] == 0 && seen.iter().all(|&p| p < 1_000));
    let urls = urls(&step);
    assert_eq!(urls.len(), 3);
    assert_eq!(
        urls[1],
        "sandbox://draw/image?seed=7&index=1&width=1024&height=768&prompt=a%20red%20fox%20%26%20a%20moon"
    );
}

#[test]
fn a_missing_seed_comes_from_the_job() {
    let (first, ..) = run("image", r#"{"prompt":"x"}"#);
    let (second, ..) = run("sandbox/image", r#"{"prompt":"x"}"#);
    assert_eq!(urls(&first), urls(&second));
    assert!(!urls(&first)[0].contains("seed=0&"));
}

#[test]
fn clips() {
    let (step, ..) = run(
        "sandbox/video",
        r#"{"prompt":"x","aspect_ratio":"9:16","duration":2.5,"seed":1}"#,
    );
    assert_eq!(
        urls(&step),
        ["sandbox://draw/video?seed=1&index=0&width=270&height=480&duration_ms=2500&prompt=x"]
    );
}

#[test]
fn misbehaves_on_request() {
    let failure = |params: &str| match run("sandbox/image", params) {
        (
            Step {
                action: Action::Fail(f),
                ..
            },
            _,
            took,
        ) => (f.kind, took),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        failure(r#"{"outcome":"fail","latency_ms":500}"#),
        (ErrorKind::Upstream, 500)
    );
    assert_eq!(
        failure(r#"{"outcome":"refuse","latency_ms":500}"#),
        (ErrorKind::ContentPolicy, 0)
    );
    assert_eq!(failure(r#"{"outcome":"hang"}"#), (ErrorKind::Timeout, 100_000));
}

#[test]
fn a_cancel_ends_it() {
    let first = Sandbox
        .step(&job("sandbox/image", r#"{"latency_ms":900}"#, b"", 0), Event::Start)
        .unwrap();
    let state = first.state.unwrap();
    let step = Sandbox
        .step(&job("sandbox/image", "{}", &state, 1), Event::Cancel)
        .unwrap();
    assert!(matches!(step.action, Action::Fail(f) if f.kind == ErrorKind::Cancelled));
}

#[test]
fn the_url_is_all_that_drawing_needs() {
    let long = "wide river ".repeat(500);
    let params = serde_json::json!({"prompt": long, "image_size": "square", "seed": 3}).to_string();
    let url = urls(&run("sandbox/image", &params).0).remove(0);
    assert!(url.len() < 2_000, "{}", url.len());
    let png = draw(&url).unwrap();
    assert_eq!(png, draw(&url).unwrap());
    assert!(png.starts_with(b"\x89PNG"));
    assert!(matches!(
        draw("sandbox://draw/image?prompt=x"),
        Err(DrawError::Url("seed"))
    ));
    assert!(matches!(
        draw("sandbox://draw/image?prompt=x&seed=1&index=0&width=1&height=9000"),
        Err(DrawError::Art(_))
    ));
}
