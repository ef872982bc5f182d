//! Event streams without a worker: a test moves what they tell.

use futures_util::StreamExt;
use salvo::test::{ResponseExt, TestClient};
use salvo::{Response, Service};
use serde_json::{Value, json};
use std::time::Duration;

use super::generations::{picture, shop};
use super::url;
use crate::clock;

/// A stream that should have ended long before has hung.
const PATIENCE: Duration = Duration::from_secs(20);

fn stream_path(id: &str) -> String {
    format!("/api/v1/generations/async/{id}/stream")
}

async fn open(service: &Service, path: &str, token: &str, last: Option<&str>) -> Response {
    let request = TestClient::get(url(path)).bearer_auth(token);
    match last {
        Some(last) => request.add_header("last-event-id", last, true),
        None => request,
    }
    .send(service)
    .await
}

/// The whole stream as `(id, event, data)`; comments are left out.
async fn frames(mut response: Response) -> Vec<(i64, String, Value)> {
    let text = tokio::time::timeout(PATIENCE, response.take_string())
        .await
        .unwrap()
        .unwrap();
    let frame = |frame: &str| {
        let (id, data) = frame.strip_prefix("id: ")?.split_once("\ndata: ")?;
        let frame: Value = serde_json::from_str(data).unwrap();
        Some((
            id.parse().unwrap(),
            frame["event"].as_str()?.to_owned(),
            frame["data"].clone(),
        ))
    };
    text.split("\n\n").filter_map(frame).collect()
}

#[tokio::test]
async fn a_stream_tells_the_present_then_the_changes_then_ends() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let id = shop.submit(&token, &picture()).await["generation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let response = open(&shop.service, &stream_path(&id), &token, None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let (frames, cancelled) = tokio::join!(frames(response), shop.cancel(&token, &id));
    assert_eq!(cancelled["cancelled"], true);
    let events: Vec<_> = frames.iter().map(|(_, event, _)| event.as_str()).collect();
    assert_eq!(events, ["queued", "cancelled"]);
    assert_eq!(frames[0].2, json!({"status": "queued", "position": 0}));
    assert!(frames[0].0 < frames[1].0);
    assert_eq!(shop.services.live.watched(), 0, "nothing is left of the watcher");

    // Whoever was cut off after the first frame gets the rest; whoever saw the end gets nothing more.
    let (first, last) = (frames[0].0.to_string(), frames[1].0.to_string());
    let rest = self::frames(open(&shop.service, &stream_path(&id), &token, Some(&first)).await).await;
    assert_eq!(rest, frames[1..]);
    let nothing = open(&shop.service, &stream_path(&id), &token, Some(&last)).await;
    assert_eq!(nothing.status_code.unwrap().as_u16(), 204);
    let late = self::frames(open(&shop.service, &stream_path(&id), &token, None).await).await;
    assert_eq!(late, frames[1..]);
}

#[tokio::test]
async fn a_stream_tells_the_position_as_it_changes() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            shop.submit(&token, &picture()).await["generation_id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let mut body = open(&shop.service, &stream_path(&ids[2]), &token, None)
        .await
        .take_body();
    let mut told = Vec::new();
    while let Some(piece) = tokio::time::timeout(PATIENCE, body.next()).await.unwrap() {
        let piece = String::from_utf8(piece.unwrap().into_data().unwrap().to_vec()).unwrap();
        let frame: Value = serde_json::from_str(piece.split_once("\ndata: ").unwrap().1).unwrap();
        told.push((
            frame["event"].as_str().unwrap().to_owned(),
            frame["data"]["position"].as_u64(),
        ));
        // What is told moves the next one: first somebody before it leaves, then it leaves itself.
        match told.len() {
            1 => drop(shop.cancel(&token, &ids[0]).await),
            2 => drop(shop.cancel(&token, &ids[2]).await),
            _ => {}
        }
    }
    let told: Vec<_> = told
        .iter()
        .map(|(event, position)| (event.as_str(), *position))
        .collect();
    assert_eq!(told, [("queued", Some(2)), ("queued", Some(1)), ("cancelled", None)]);
}

#[tokio::test]
async fn a_publication_that_was_lost_is_found_again() {
    let shop = shop().await;
    let session = shop.join("a@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let id = shop.submit(token, &picture()).await["generation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let response = open(&shop.service, &stream_path(&id), token, None).await;
    // Cancelled behind the back of the live hub.
    let user = session["user"]["id"].as_str().unwrap().parse().unwrap();
    let store = &shop.services.store;
    store
        .cancel(user, id.parse().unwrap(), clock::now())
        .await
        .unwrap()
        .unwrap();
    let frames = frames(response).await;
    assert_eq!(frames.last().unwrap().1, "cancelled");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let id = shop.submit(&token, &picture()).await["generation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let response = open(&shop.service, &stream_path(&id), &token, None).await;
    let stop = async { shop.services.shutdown.cancel() };
    let (frames, ()) = tokio::join!(frames(response), stop);
    assert_eq!(frames.len(), 1);
}

#[tokio::test]
async fn a_stream_is_its_owner_s_and_a_stream_token_opens_it() {
    let shop = shop().await;
    let (mine, yours) = (shop.join("a@example.com").await, shop.token("b@example.com").await);
    let token = mine["access_token"].as_str().unwrap();
    let id = shop.submit(token, &picture()).await["generation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = stream_path(&id);
    shop.get(&path, &yours).await.problem(404, "not_found");
    shop.get(&stream_path("zzz"), token).await.problem(404, "not_found");
    shop.send(TestClient::get(url(&path)))
        .await
        .problem(401, "unauthorized");
    shop.send(TestClient::get(url(&format!("{path}?token={token}"))))
        .await
        .problem(401, "unauthorized");
    let auth = &shop.services.auth;
    let caller = auth.verify(token).await.unwrap();
    let ticket = auth.stream_token(&caller, Some(id.parse().unwrap())).unwrap();
    shop.services.shutdown.cancel();
    let response = TestClient::get(url(&format!("{path}?token={ticket}")))
        .send(&shop.service)
        .await;
    assert_eq!(response.status_code.unwrap().as_u16(), 200);
}
