//! Webhooks as a receiver sees them.

use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use salvo::conn::tcp::TcpAcceptor;
use salvo::{Depot, Handler, Request, Router, Server};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::fal_sim::Settings;

use super::{SOON, client, get, start, submit_as, text};

/// What arrived: parsed body, the four webhook headers, raw body.
type Arrived = (Value, Vec<String>, Vec<u8>);

/// Collects deliveries and refuses the first so many.
struct Receiver {
    seen: Arc<Mutex<Vec<Arrived>>>,
    refuse: Mutex<u32>,
}

#[salvo::async_trait]
impl Handler for Receiver {
    async fn handle(
        &self,
        req: &mut Request,
        _depot: &mut Depot,
        res: &mut salvo::Response,
        _ctrl: &mut salvo::FlowCtrl,
    ) {
        let headers = ["request-id", "user-id", "timestamp", "signature"]
            .map(|name| req.header::<String>(format!("x-fal-webhook-{name}")).unwrap());
        let body = req.payload().await.unwrap().to_vec();
        let parsed = serde_json::from_slice(&body).unwrap();
        self.seen.lock().unwrap().push((parsed, headers.to_vec(), body));
        let mut refuse = self.refuse.lock().unwrap();
        let status = if *refuse > 0 { 503 } else { 200 };
        *refuse = refuse.saturating_sub(1);
        res.status_code(salvo::http::StatusCode::from_u16(status).unwrap());
    }
}

#[tokio::test]
async fn webhooks_are_signed_retried_doubled_and_lie() {
    let sim = start(Settings {
        webhook_retry_ms: vec![10, 10],
        ..Settings::default()
    })
    .await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let receiver = Receiver {
        seen: Arc::clone(&seen),
        refuse: Mutex::new(1),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/hook", listener.local_addr().unwrap());
    let acceptor = TcpAcceptor::try_from(listener).unwrap();
    let router = Router::with_path("{**path}").goal(receiver);
    let server = tokio::spawn(Server::new(acceptor).try_serve(router));
    let client = client();
    let jwks: Value = get(&client, &format!("{}/.well-known/jwks.json", sim.base_url))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(jwks["keys"][0]["x"].as_str().unwrap())
        .unwrap();
    let key = UnparsedPublicKey::new(&ED25519, key);

    let cases = [
        ("hook good", vec!["OK", "OK"]), // the first is answered 503
        ("hook failed [sim:policy]", vec!["ERROR"]),
        ("hook doubled [sim:webhook=duplicate]", vec!["OK", "OK", "OK"]),
        ("hook lies [sim:webhook=lie] [sim:fail]", vec!["OK", "ERROR"]),
        ("hook forged [sim:webhook=bad_signature]", vec!["OK"]),
        ("hook late [sim:webhook=stale]", vec!["OK"]),
    ];
    for (prompt, said) in cases {
        let query = format!("?fal_webhook={hook}");
        let answer = submit_as(&client, &sim, &query, &json!({ "prompt": prompt }))
            .await
            .unwrap();
        let id = text(&answer.json().await.unwrap(), "request_id");
        let requests = sim
            .wait_for(SOON, |requests| requests.last().unwrap().deliveries.len() == said.len())
            .await
            .unwrap();
        let deliveries = &requests.last().unwrap().deliveries;
        assert_eq!(
            deliveries.iter().map(|one| one.said.as_str()).collect::<Vec<_>>(),
            said,
            "{prompt}"
        );
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(seen.len(), said.len());
        for (body, headers, raw) in seen {
            assert_eq!((&body["request_id"], &headers[0]), (&json!(id), &id));
            let digest = hex::encode(Sha256::digest(&raw));
            let message = format!("{}\n{}\n{}\n{digest}", headers[0], headers[1], headers[2]);
            let signature = hex::decode(&headers[3]).unwrap();
            let valid = key.verify(message.as_bytes(), &signature).is_ok();
            assert_eq!(valid, !prompt.contains("bad_signature"), "{prompt}");
            match body["status"].as_str().unwrap() {
                "OK" => assert_eq!(body["payload"]["images"].as_array().unwrap().len(), 1),
                _ => assert!(body["payload"]["detail"].is_array()),
            }
        }
    }
    assert_eq!(sim.requests()[0].deliveries[0].answered, Some(503));
    server.abort();
}
