//! The event stream (contract §4.3 with the rulings): snapshot, numbers, resume, heartbeats, tokens, many watchers.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::harness::{SOON, Server, eventually, race};

/// Longest silence that the server promises, and some patience.
const HEARTBEAT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_with_a_snapshot_and_resumes_by_number() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "x",
            json!({"latency_ms": 1500, "image_size": "square"}),
        )
        .await;
    let mut stream = ada.stream(&id).await;
    assert_eq!(stream.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(stream.header("cache-control"), "no-cache");
    assert_eq!(stream.header("x-accel-buffering"), "no");
    let first = stream.next().await.unwrap();
    assert!(["queued", "processing"].contains(&first.event()), "{first:?}");
    assert_eq!(first.data()["status"], first.event());
    let frames = stream.rest().await;
    assert_eq!(frames.last().unwrap().event(), "completed");
    let numbers: Vec<i64> = frames.iter().map(|f| f.id.as_ref().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");

    // From the start: all of it. From the middle: exactly the rest. From the end: nothing, and no reconnecting.
    let all = ada.stream_after(&id, "0").await.rest().await;
    let ids: Vec<_> = all.iter().map(|f| f.id.clone().unwrap()).collect();
    let mut unique = ids.clone();
    unique.dedup();
    assert_eq!(ids, unique, "every stored event once");
    let middle = ids.len() / 2;
    let rest = ada.stream_after(&id, &ids[middle]).await.rest().await;
    assert_eq!(
        rest.iter().map(|f| f.id.clone().unwrap()).collect::<Vec<_>>(),
        ids[middle + 1..]
    );
    let path = format!("/api/v1/generations/async/{id}/stream?last_event_id={}", ids[middle]);
    let by_query = ada.open_stream(ada.request(Method::GET, &path)).await.rest().await;
    let events = |frames: &[tests::harness::Frame]| frames.iter().map(|f| f.id.clone()).collect::<Vec<_>>();
    assert_eq!(events(&by_query), events(&rest));
    let end = ada.stream_request(&id).header("Last-Event-ID", ids.last().unwrap());
    ada.send(end).await.expect(204);
    // Nonsense counts as none.
    let snapshot = ada.stream_after(&id, "nonsense").await.rest().await;
    assert_eq!(snapshot.len(), 1);
    assert_eq!(snapshot[0].event(), "completed");
    ada.get("/api/v1/generations/async/nonsense/stream")
        .await
        .problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_filled_with_heartbeats() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada.submit("sandbox/image", "x", json!({"outcome": "hang"})).await;
    ada.wait_for(&id, "processing").await;
    let mut stream = ada.stream(&id).await;
    assert_eq!(stream.next().await.unwrap().event(), "processing");
    stream.heartbeat(HEARTBEAT).await;
    ada.cancel(&id).await.ok();
    assert_eq!(stream.rest().await.last().unwrap().event(), "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_token_opens_its_stream_and_nothing_else() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let mine = ada.submit_quick("mine").await;
    let other = ada.submit_quick("other").await;
    let bobs = bob.submit_quick("bob's").await;
    for (client, id) in [(&ada, &mine), (&ada, &other), (&bob, &bobs)] {
        client.wait_for(id, "completed").await;
    }
    let token = |body: serde_json::Value| {
        let ada = &ada;
        async move {
            let answer = ada.post("/api/v1/auth/stream-token", &body).await.ok();
            assert!(answer["expires_in"].as_u64().unwrap() <= 3600);
            answer["token"].as_str().unwrap().to_owned()
        }
    };
    let nobody = server.anonymous();
    let open = |id: &str, token: &str| {
        let path = format!("/api/v1/generations/async/{id}/stream?token={token}");
        nobody.request(Method::GET, &path)
    };
    let narrow = token(json!({"generation_id": mine})).await;
    let wide = token(json!({})).await;
    for request in [open(&mine, &narrow), open(&mine, &wide), open(&other, &wide)] {
        let frames = nobody.open_stream(request).await.rest().await;
        assert_eq!(frames.last().unwrap().event(), "completed");
    }
    nobody.send(open(&other, &narrow)).await.problem(401, "unauthorized");
    nobody.send(open(&bobs, &wide)).await.problem(404, "not_found");
    nobody.send(open(&mine, ada.token())).await.problem(401, "unauthorized");
    nobody.send(open(&mine, "nonsense")).await.problem(401, "unauthorized");
    nobody.send(open(&mine, "")).await.problem(401, "unauthorized");
    ada.post("/api/v1/auth/stream-token", &json!({"generation_id": "x"}))
        .await
        .expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watchers_see_the_same_and_leave_without_a_trace() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "x",
            json!({"latency_ms": 1500, "image_size": "square"}),
        )
        .await;
    let mut first = ada.stream(&id).await;
    first.next().await.unwrap();
    assert_eq!(open_streams(&server).await, 1);
    let seen = race(50, |number| {
        let (ada, id) = (&ada, &id);
        async move {
            let mut stream = ada.stream(id).await;
            if number % 5 == 0 {
                // Closes the laptop after the first frame.
                stream.next().await.unwrap();
                return None;
            }
            Some(stream.rest().await)
        }
    })
    .await;
    let seen: Vec<_> = seen.into_iter().flatten().collect();
    assert_eq!(seen.len(), 40);
    for frames in &seen {
        let finals: Vec<_> = frames.iter().filter(|f| f.is_final()).collect();
        assert_eq!(finals.len(), 1, "{frames:#?}");
        assert_eq!(finals[0].event(), "completed");
        assert_eq!(frames.last().unwrap().id, seen[0].last().unwrap().id);
    }
    assert_eq!(first.rest().await.last().unwrap().event(), "completed");
    eventually("no stream is open any more", SOON, || async {
        (open_streams(&server).await == 0).then_some(())
    })
    .await;
}

/// The gauge of open streams.
async fn open_streams(server: &Server) -> u32 {
    let text = server.anonymous().get("/metrics").await.expect(200).text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("velro_sse_connections "));
    value.expect("open streams are measured").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_the_server_stops_and_resume_after_it() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "x",
            json!({"latency_ms": 4000, "image_size": "square"}),
        )
        .await;
    let mut stream = ada.stream(&id).await;
    let seen = stream.until("processing", |frame| frame.event() == "processing").await;
    let last = seen.last().unwrap().id.clone().unwrap();
    server.terminate();
    // It ends, rather than hanging until a proxy gives up.
    while let Ok(Some(frame)) = stream.try_next(Duration::from_secs(5)).await {
        assert!(!frame.is_final(), "{frame:?}");
    }
    server.restart().await;
    let rest = ada.stream_after(&id, &last).await.rest().await;
    assert_eq!(rest.last().unwrap().event(), "completed");
    let numbers: Vec<i64> = rest.iter().map(|f| f.id.as_ref().unwrap().parse().unwrap()).collect();
    assert!(
        numbers.is_sorted() && numbers[0] >= last.parse().unwrap(),
        "{last} {numbers:?}"
    );
}
