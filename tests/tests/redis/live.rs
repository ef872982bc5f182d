//! Two hubs over one Redis: each sees what the other publishes, once, and loses nothing of its own without it.

use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::redis::{OwnRedis, test_link};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use velro::clock::Micros;
use velro::generation::{Event, EventKind};
use velro::id::{AttemptId, GenerationId};
use velro::queue::live::{Live, Seen, Signal, Watch};
use velro::shared::Link;
use velro::shared::bus::Bus;

use super::{link_to, until};

async fn hub(link: &Link) -> Arc<Live> {
    let live = Arc::new(Live::default());
    live.join(link);
    until("no subscription", || async { live.hears_all() }).await;
    live
}

fn event(id: GenerationId, seq: i64) -> Event {
    Event {
        seq,
        generation_id: id,
        kind: EventKind::Processing,
        data: json!({ "status": "processing", "progress": 0.5 }),
        created_at: Micros(1_700_000_000_000_000),
    }
}

async fn next(watch: &mut Watch) -> Event {
    let seen = timeout(Duration::from_secs(10), watch.next()).await;
    match seen.expect("no event came") {
        Seen::Event(event) => (*event).clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_hubs_deliver_each_other_s_events_and_their_own_once() {
    let link = test_link();
    let (here, there) = (hub(&link).await, hub(&link).await);
    let id = GenerationId::new();
    let (mut mine, mut theirs) = (here.watch(id), there.watch(id));
    for seq in 1..=300 {
        here.publish(&[event(id, seq), event(GenerationId::new(), seq)]);
        // A watcher may be some events behind, not three hundred.
        assert_eq!(next(&mut mine).await, event(id, seq));
        assert_eq!(next(&mut theirs).await, event(id, seq), "whole, and in order");
    }
    there.publish(&[event(id, 999)]);
    assert_eq!(next(&mut theirs).await.seq, 999);
    assert_eq!(next(&mut mine).await.seq, 999, "nothing of its own came back before it");
}

#[tokio::test]
async fn nudges_and_wake_ups_reach_every_process_once() {
    let link = test_link();
    let (here, there) = (hub(&link).await, hub(&link).await);
    let (mut mine, mut theirs) = (here.signals(), there.signals());
    let attempt = AttemptId::new();
    here.nudge(attempt);
    assert_eq!(mine.recv().await.unwrap(), Signal::Due(attempt));
    assert_eq!(theirs.recv().await.unwrap(), Signal::Due(attempt));
    there.look_at_the_store();
    assert_eq!(mine.recv().await.unwrap(), Signal::Look);
    here.wake();
    for hub in [&here, &there] {
        timeout(Duration::from_secs(10), hub.woken()).await.expect("not woken");
    }
    // What came last to `theirs` is the answer to what was sent last: nothing of its own came back.
    here.nudge(attempt);
    assert_eq!(theirs.recv().await.unwrap(), Signal::Due(attempt));
}

#[tokio::test]
async fn a_hub_goes_on_without_redis_and_says_what_it_may_have_missed() {
    let mut redis = OwnRedis::start();
    let link = link_to(&redis);
    let (here, there) = (hub(&link).await, hub(&link).await);
    let gaps = there.gaps();
    redis.kill();
    until("the loss was not noticed", || async { !there.hears_all() }).await;
    let id = GenerationId::new();
    let (mut mine, mut theirs) = (here.watch(id), there.watch(id));
    here.publish(&[event(id, 1)]);
    assert_eq!(next(&mut mine).await.seq, 1, "its own watchers do not need Redis");
    redis.start_again();
    until("no subscription again", || async {
        here.hears_all() && there.hears_all() && link.is_up()
    })
    .await;
    assert!(there.gaps() > gaps);
    here.publish(&[event(id, 2)]);
    assert_eq!(next(&mut theirs).await.seq, 2);
}

/// A way to `redis` that forgets connections with a subscription once it is told to: they stay open and say nothing.
async fn forgetful(redis: &OwnRedis) -> (String, Arc<AtomicBool>) {
    let target = redis.url().replace("redis://", "").replace('/', "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let forgets = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&forgets);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                let mut subscribes = false;
                // A connection made after it has forgotten is a good one.
                let is_old = !told.load(Ordering::SeqCst);
                loop {
                    let (to, bytes) = tokio::select! {
                        n = client.read(&mut up) => (&mut server, &up[..n.unwrap_or(0)]),
                        n = server.read(&mut down) => (&mut client, &down[..n.unwrap_or(0)]),
                    };
                    subscribes |= bytes.windows(9).any(|word| word == b"SUBSCRIBE");
                    if is_old && subscribes && told.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    if bytes.is_empty() || to.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, forgets)
}

#[tokio::test]
async fn a_subscription_that_died_silently_is_made_anew() {
    let redis = OwnRedis::start();
    let (url, forgets) = forgetful(&redis).await;
    let link = Link::open(&url, "velro:", 4).unwrap();
    let (heard, mut news) = tokio::sync::mpsc::unbounded_channel();
    let listener = Bus::with_pulse(&link, "news", Duration::from_millis(200), move |message| {
        heard.send(message.to_vec()).unwrap();
    });
    let teller = Bus::join(&link_to(&redis), "news", |_| {});
    until("no subscription", || async { listener.is_listening() }).await;
    // Longer than silence may last: pulses keep it, and are not delivered.
    let gaps = listener.gaps();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(listener.gaps(), gaps);
    teller.publish(b"one");
    assert_eq!(news.recv().await.unwrap(), b"one");

    forgets.store(true, Ordering::SeqCst);
    until("nobody noticed", || async { listener.gaps() > gaps }).await;
    assert!(link.is_up(), "nothing else failed");
    teller.publish(b"two");
    assert_eq!(news.recv().await.unwrap(), b"two");
}

#[tokio::test]
async fn a_flush_returns_with_and_without_redis() {
    let mut redis = OwnRedis::start();
    let (here, there) = (hub(&link_to(&redis)).await, hub(&link_to(&redis)).await);
    let mut theirs = there.signals();
    here.look_at_the_store();
    here.flush().await;
    assert_eq!(theirs.recv().await.unwrap(), Signal::Look);
    redis.kill();
    here.look_at_the_store();
    timeout(Duration::from_secs(5), here.flush())
        .await
        .expect("it waits for ever");
}

#[tokio::test]
async fn a_hub_of_its_own_hears_all() {
    let live = Live::default();
    live.flush().await;
    live.look_at_the_store();
    live.nudge(AttemptId::new());
    assert!(live.hears_all());
    assert_eq!(live.gaps(), 0);
}
