//! Whatever arrives, in whatever order: no panic, no second submit, the same answer to the same question.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Anything {
    Answer(u16, Vec<u8>),
    Hook(Vec<u8>),
    Failed(Transport),
    Start,
    Timer,
    Cancel,
    Interrupted,
}

/// Bodies that are close to what APIs say, and others.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "IN_QUEUE",
        "IN_PROGRESS",
        "COMPLETED",
        "starting",
        "succeeded",
        "failed",
        "canceled",
        "OK",
        "ERROR",
        "x",
    ]);
    let id = prop::sample::select(vec![
        json!("r1"),
        json!("r2"),
        json!(7),
        json!("../.."),
        json!("{{secret:A}}"),
        json!(null),
    ]);
    let url = prop::sample::select(vec![
        json!("https://x.example/1.png"),
        json!({"url": "https://x.example/1.png"}),
        json!(["data:image/png;base64,aGk="]),
        json!(""),
        json!([]),
        json!(null),
        json!([[["deep"]]]),
        json!(1e300),
    ]);
    let like = (word, id, url, any::<f64>()).prop_map(|(word, id, url, number)| {
        json!({"request_id": id, "id": id, "status": word, "images": url, "output": url, "logs": [{"message": "9%"}, url],
               "error": url, "detail": [{"type": word}], "queue_position": number, "metrics": {"predict_time": number},
               "status_url": "https://queue.fal.run/s", "cancel_url": url})
        .to_string()
        .into_bytes()
    });
    prop_oneof![4 => like, 1 => prop::collection::vec(any::<u8>(), 0..80), 1 => "[\\[{\\]}\":,0-9a-z]{0,40}".prop_map(String::into_bytes)]
}

fn anything() -> impl Strategy<Value = Anything> {
    let status = prop_oneof![3 => Just(200), 1 => 100..600_u16];
    let transport = prop::sample::select(vec![
        Transport::NotSent,
        Transport::Timeout,
        Transport::Reset,
        Transport::BodyTooLarge,
        Transport::CircuitOpen,
        Transport::HostDenied,
    ]);
    prop_oneof![
        6 => (status, bodies()).prop_map(|(status, body)| Anything::Answer(status, body)),
        2 => bodies().prop_map(Anything::Hook),
        1 => transport.prop_map(Anything::Failed),
        1 => prop::sample::select(vec![Anything::Start, Anything::Cancel, Anything::Interrupted]),
        2 => Just(Anything::Timer),
    ]
}

fn tell(attempt: &mut Attempt, what: &Anything) -> Action {
    let response = |status, body| Response {
        status,
        headers: &[],
        body,
    };
    attempt.step(match what {
        Anything::Answer(status, body) => Event::Http(response(*status, body)),
        Anything::Hook(body) => Event::Webhook(response(200, body)),
        Anything::Failed(transport) => Event::Failed(*transport),
        Anything::Start => Event::Start,
        Anything::Timer => Event::Timer,
        Anything::Cancel => Event::Cancel,
        Anything::Interrupted => Event::Interrupted,
    })
}

/// Everything about an action, requests with their headers and bodies included.
fn whole(action: &Action) -> String {
    match action {
        Action::Http(request) => format!("{request:?} {:?} {:?}", request.headers, request.body),
        other => format!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn nothing_breaks_it(which in 0..3_usize, hooked: bool, events in prop::collection::vec((anything(), 0..700_000_u64), 1..14)) {
        let text = [FAL, REPLICATE, WEBUI][which];
        let make = || if hooked { Attempt::hooked(text) } else { Attempt::new(text) };
        let (mut one, mut two) = (make(), make());
        one.step(Event::Start);
        two.step(Event::Start);
        for (event, later) in &events {
            let (first, second) = (tell(&mut one, event), tell(&mut two, event));
            prop_assert_eq!(whole(&first), whole(&second));
            prop_assert_eq!(&one.state, &two.state);
            if let Action::Http(request) = &first {
                prop_assert!(!request.effect.is_submit(), "a second submit");
                prop_assert!(!request.url.contains("{{"), "{}", request.url);
                let host = request.url.starts_with("https://queue.fal.run/") || request.url.starts_with("https://api.replicate.com/");
                prop_assert!(host, "{}", request.url);
            }
            one.now_ms += later;
            two.now_ms += later;
        }
    }
}
