//! Cancelling, and cancelling against completing.

use std::time::Duration;

use serde_json::json;
use tests::fal_sim::{FalSim, Options as SimOptions, Phase, Settings};
use tests::harness::{Client, Options, SOON, Server, race};

/// Races in all, and how many people share them: nobody may run out of slots or credits.
const RACES: usize = 1000;
const PEOPLE: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_job_is_cancelled_and_paid_back() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let hanging = json!({"outcome": "hang", "image_size": "square"});
    let mut ids = Vec::new();
    for i in 0..6 {
        ids.push(ada.submit("sandbox/image", &format!("{i}"), hanging.clone()).await);
    }
    // Four of one person run at once; the fifth waits with nobody before it, the sixth behind it.
    let fifth = ada.wait_for(&ids[4], "queued").await;
    assert_eq!(fifth["queue_position"], 0);
    assert_eq!(ada.status(&ids[5]).await["queue_position"], 1);
    let mut stream = ada.stream(&ids[5]).await;
    let snapshot = stream.next().await.unwrap();
    assert_eq!((snapshot.event(), &snapshot.data()["position"]), ("queued", &json!(1)));

    let answer = ada.cancel(&ids[4]).await.ok();
    assert_eq!(
        answer,
        json!({"generation_id": ids[4], "cancelled": true, "message": "Generation cancelled"})
    );
    let moved = stream.next().await.unwrap();
    assert_eq!(
        (moved.event(), &moved.data()["position"]),
        ("queued", &json!(0)),
        "the one behind moves up"
    );
    let again = ada.cancel(&ids[4]).await.ok();
    assert_eq!(again["cancelled"], false);
    let cancelled = ada.status(&ids[4]).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["queue_position"]),
        (&json!("cancelled"), &json!(null))
    );
    let frames = ada.stream(&ids[4]).await.rest().await;
    assert_eq!(frames.last().unwrap().event(), "cancelled");
    for id in ids {
        ada.cancel(&id).await.ok();
        ada.wait_for(&id, "cancelled").await;
    }
    assert_eq!(ada.balance().await, 1000);
    let missing = "0190f0f0-0000-7000-8000-000000000000";
    ada.cancel(missing).await.problem(404, "not_found");
    ada.cancel("nonsense").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fal_has_queued_is_taken_back() {
    let settings = Settings {
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let id = ada.submit("fal-ai/veo3", "a queue", json!({})).await;
    sim.wait_for(SOON, |requests| requests.len() == 1).await.unwrap();
    ada.wait_for(&id, "processing").await;
    assert_eq!(ada.balance().await, 500);
    let answer = ada.cancel(&id).await.ok();
    assert_eq!(answer["cancelled"], true, "{answer}");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -500", "refund +500"]);
    let request = &sim.requests()[0];
    assert_eq!((request.phase, request.billed_milliunits), (Phase::Completed, 0));
    assert!(request.counts.cancel >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fal_does_not_stop_is_delivered_and_paid() {
    let settings = Settings {
        manual: true,
        ignore_cancel: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let id = ada.submit("fal-ai/veo3", "unstoppable", json!({})).await;
    let bought = sim.wait_for(SOON, |requests| requests.len() == 1).await.unwrap();
    sim.start_job(&bought[0].request_id).unwrap();
    ada.wait_for(&id, "processing").await;
    let answer = ada.cancel(&id).await.ok();
    assert_eq!(answer["cancelled"], false, "{answer}");
    assert_eq!(ada.status(&id).await["status"], "processing");
    sim.finish_job(&bought[0].request_id).unwrap();
    ada.wait_for(&id, "completed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -500"]);
}

/// When to cancel: later after a cancel that won, sooner after one that lost. So the two meet on any machine, and most
/// races are close; the cancels win more often because a picture costs more time to draw than not to draw.
struct Aim(Duration);

impl Aim {
    fn learn(&mut self, cancelled: bool) {
        let aim = self.0.as_micros() as u64;
        let next = if cancelled { aim + aim / 10 + 500 } else { aim - aim / 3 };
        self.0 = Duration::from_micros(next.min(10_000_000));
    }
}

/// One race: whether it ended cancelled.
async fn run_race(client: &Client, aim: &mut Aim) -> bool {
    let parameters = json!({"image_size": "square", "latency_ms": 20, "seed": 1});
    let id = client.submit("sandbox/image", "race", parameters).await;
    tokio::time::sleep(aim.0).await;
    let answers = race(2, |_| client.cancel(&id)).await;
    let said: Vec<bool> = answers
        .into_iter()
        .map(|a| a.ok()["cancelled"].as_bool().unwrap())
        .collect();
    let end = client.wait_until_terminal(&id).await;
    let cancelled = end["status"] == "cancelled";
    assert!(cancelled || end["status"] == "completed", "{end}");
    assert!(
        said.iter().filter(|yes| **yes).count() <= 1,
        "both calls say that they cancelled it"
    );
    assert!(cancelled || !said.contains(&true), "said cancelled, is {end}");
    // Nothing flips afterwards.
    assert_eq!(client.status(&id).await["status"], end["status"]);
    let events = client.stream_after(&id, "0").await.rest().await;
    let finals: Vec<&str> = events.iter().filter(|f| f.is_final()).map(|f| f.event()).collect();
    assert_eq!(finals, [if cancelled { "cancelled" } else { "completed" }]);
    aim.learn(cancelled);
    cancelled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_races_completion_a_thousand_times_and_the_money_follows() {
    let server = Server::start().await;
    let people = race(PEOPLE, |i| {
        let server = &server;
        async move { server.register(&format!("user{i}")).await }
    })
    .await;
    let wins = race(PEOPLE, |person| {
        let client = &people[person];
        async move {
            let mut cancelled = 0;
            let mut aim = Aim(Duration::from_millis(40));
            for _ in 0..RACES / PEOPLE {
                cancelled += usize::from(run_race(client, &mut aim).await);
            }
            cancelled
        }
    })
    .await;
    for (client, cancelled) in people.iter().zip(&wins) {
        let delivered = (RACES / PEOPLE - cancelled) as i64;
        assert_eq!(client.balance().await, 1000 - 5 * delivered);
    }
    let cancelled: usize = wins.iter().sum();
    let close = RACES / 10..RACES * 9 / 10;
    assert!(
        close.contains(&cancelled),
        "no race: {cancelled} of {RACES} were cancelled"
    );
}
