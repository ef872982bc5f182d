//! Signatures of webhooks, with vectors made by other implementations.

use super::*;
use crate::clock::Micros;
use crate::upstream::{HookRefused, WebhookVerifier};
use reqwest::header::{HeaderMap, HeaderValue};

const BODY: &[u8] = br#"{"request_id":"024ca5b1-45d3-4afd-883e-ad3abe2a1c4d","status":"OK"}"#;
const SIGNATURE: &str = "4366a2900ecf83a2d7a2912bf1cdfc2ae250b88ebf1f006ce62a3aa0680e614d\
                         7f7a1d22fa0dcbabf999ace41f2c9cfa4aecf3dcc04cd990c9167b45a0d75a00";
const KEYS: &str = r#"{"keys":[{"kty":"RSA","n":"x"},{"kty":"OKP","crv":"Ed25519","x":"AAAA"},
    {"kty":"OKP","crv":"Ed25519","x":"6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"}]}"#;
const OTHER_KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const AT_S: i64 = 1_700_000_000;

fn at(seconds: i64) -> Micros {
    Micros(seconds * 1_000_000)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(k, v)| ((*k).parse().unwrap(), HeaderValue::from_str(v).unwrap()))
        .collect()
}

fn signed() -> Vec<(&'static str, &'static str)> {
    vec![
        ("x-fal-webhook-request-id", "024ca5b1-45d3-4afd-883e-ad3abe2a1c4d"),
        ("x-fal-webhook-user-id", "user_123"),
        ("x-fal-webhook-timestamp", "1700000000"),
        ("x-fal-webhook-signature", SIGNATURE),
    ]
}

async fn fal(keys: Does) -> (WebhookVerifier, LoadedProvider, Server) {
    let server = Server::start(keys).await;
    let auth = WebhookAuth::Ed25519Jwks {
        jwks: server.url("/jwks.json"),
    };
    let provider = provider(server.address, Some(auth));
    (WebhookVerifier::new(upstream(true)), provider, server)
}

#[tokio::test]
async fn fal_s_signature() {
    let (verifier, provider, server) = fal(Does::answer(200, "", KEYS.as_bytes())).await;
    let good = headers(&signed());
    for now in [AT_S, AT_S - 300, AT_S + 300] {
        assert_eq!(verifier.verify(&provider, &good, BODY, at(now)).await, Ok(()));
    }
    assert_eq!(server.connections(), 1, "the keys are kept");
    for now in [AT_S - 301, AT_S + 301] {
        assert_eq!(
            verifier.verify(&provider, &good, BODY, at(now)).await,
            Err(HookRefused::Stale)
        );
    }
    let other_body = verifier.verify(&provider, &good, b"{}", at(AT_S)).await;
    assert_eq!(other_body, Err(HookRefused::Signature));
    for name in 0..4 {
        let mut missing = signed();
        let (name, _) = missing.remove(name);
        let refused = verifier.verify(&provider, &headers(&missing), BODY, at(AT_S)).await;
        assert_eq!(refused, Err(HookRefused::Header(name)));
    }
    for (index, value) in [(0, "other"), (1, "user_124"), (2, "1700000001"), (3, &SIGNATURE[2..])] {
        let mut changed = signed();
        changed[index].1 = value;
        let refused = verifier.verify(&provider, &headers(&changed), BODY, at(AT_S)).await;
        assert_eq!(refused, Err(HookRefused::Signature), "{value}");
    }
    // A second value of a header must not be able to hide behind the first.
    let mut twice = headers(&signed());
    twice.append("x-fal-webhook-user-id", HeaderValue::from_static("user_9"));
    let refused = verifier.verify(&provider, &twice, BODY, at(AT_S)).await;
    assert_eq!(refused, Err(HookRefused::Header("x-fal-webhook-user-id")));
}

#[tokio::test]
async fn unknown_keys_are_looked_up_once_a_minute() {
    let (verifier, provider, server) = fal(Does::answer(200, "", OTHER_KEYS.as_bytes())).await;
    let good = headers(&signed());
    for second in 0..60 {
        let refused = verifier.verify(&provider, &good, BODY, at(AT_S + second)).await;
        assert_eq!(refused, Err(HookRefused::Signature));
    }
    assert_eq!(server.connections(), 1);
    assert!(verifier.verify(&provider, &good, BODY, at(AT_S + 60)).await.is_err());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn without_keys_nothing_is_decided() {
    for does in [
        Does::answer(500, "", b""),
        Does::answer(200, "", b"{}"),
        Does::ReadAndClose,
    ] {
        let (verifier, provider, _server) = fal(does).await;
        let refused = verifier.verify(&provider, &headers(&signed()), BODY, at(AT_S)).await;
        assert_eq!(refused, Err(HookRefused::KeysUnavailable));
    }
}

#[tokio::test]
async fn keys_expire() {
    let (verifier, provider, server) = fal(Does::answer(200, "", KEYS.as_bytes())).await;
    let stamp = |s: i64| s.to_string();
    assert_eq!(
        verifier.verify(&provider, &headers(&signed()), BODY, at(AT_S)).await,
        Ok(())
    );
    let day_later = AT_S + 24 * 3600;
    let text = stamp(day_later);
    let mut later = headers(&signed());
    later.insert("x-fal-webhook-timestamp", HeaderValue::from_str(&text).unwrap());
    let refused = verifier.verify(&provider, &later, BODY, at(day_later)).await;
    assert_eq!(refused, Err(HookRefused::Signature));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn standard_webhooks() {
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let body = br#"{"test": 2432232314}"#;
    let auth = |secret: &str| WebhookAuth::StandardWebhooks { secret: secret.into() };
    let verifier = WebhookVerifier::new(upstream(true));
    let hooks = provider("x.example", Some(auth("HOOK")));
    let with = |signature: &str| {
        headers(&[
            ("webhook-id", ID),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ])
    };
    let now = at(1_614_265_330);
    let rotating = format!("v1a,AAAA v1,AAAA {GOOD}");
    for signature in [GOOD, &rotating] {
        assert_eq!(verifier.verify(&hooks, &with(signature), body, now).await, Ok(()));
    }
    for signature in [
        "v1,AAAA",
        "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "x",
        &GOOD[..20],
    ] {
        let refused = verifier.verify(&hooks, &with(signature), body, now).await;
        assert_eq!(refused, Err(HookRefused::Signature), "{signature}");
    }
    assert_eq!(
        verifier.verify(&hooks, &with(GOOD), b"{}", now).await,
        Err(HookRefused::Signature)
    );
    let late = verifier.verify(&hooks, &with(GOOD), body, at(1_614_265_631)).await;
    assert_eq!(late, Err(HookRefused::Stale));
    let no_secret = provider("x.example", Some(auth("NOPE")));
    let refused = verifier.verify(&no_secret, &with(GOOD), body, now).await;
    assert_eq!(refused, Err(HookRefused::KeysUnavailable));
    let unsigned = provider("x.example", None);
    assert_eq!(
        verifier.verify(&unsigned, &with(GOOD), body, now).await,
        Err(HookRefused::NoScheme)
    );
}
