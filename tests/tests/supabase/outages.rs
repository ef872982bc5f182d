//! The account service is away, silent or slow.

use std::time::{Duration, Instant};

use tests::gotrue_sim::{Fault, GoTrueSim, Kind, Settings};
use tests::harness::{Options, SOON, Server, eventually};
use tests::services::Proxy;

use super::*;

/// Longest that an existing client waits for `/auth/`.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// The account service behind a proxy that can cut it off.
async fn behind_a_proxy(settings: Settings) -> (GoTrueSim, Proxy, Options) {
    let sim = GoTrueSim::start(settings).await.unwrap();
    let proxy = Proxy::start(sim.address.port()).await.unwrap();
    // Reached under another address than its tokens say.
    let options = sim
        .options()
        .env("SUPABASE_URL", format!("http://127.0.0.1:{}/auth/v1", proxy.port()))
        .env("SUPABASE_JWT_ISSUER", sim.base_url());
    (sim, proxy, options)
}

async fn quickly(what: &str, call: impl Future<Output = tests::harness::Reply>) -> tests::harness::Reply {
    let began = Instant::now();
    let reply = call.await;
    assert!(began.elapsed() < CLIENT_PATIENCE, "{what} took {:?}", began.elapsed());
    reply
}

/// It is told, quickly, with how long to wait.
async fn away((status, code): (u16, &str), call: impl Future<Output = tests::harness::Reply>) -> serde_json::Value {
    let reply = quickly("a call while it is away", call).await;
    assert!(!reply.header("retry-after").is_empty());
    reply.problem(status, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_away_known_keys_go_on_working_and_the_rest_is_told_at_once() {
    let (sim, proxy, options) = behind_a_proxy(Settings::default()).await;
    let server = Server::with(options).await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(ME).await.ok();
    let nobody = server.anonymous();

    proxy.refuse().await;
    for (what, status, code) in [
        ("refused", 503, "service_unavailable"),
        ("silent", 504, "gateway_timeout"),
    ] {
        if what == "silent" {
            proxy.accept().await;
            proxy.pause();
        }
        let login = away((status, code), nobody.post(LOGIN, &credentials("ada@example.com"))).await;
        if status == 504 {
            assert_eq!(login["detail"], "Authentication service timeout");
        }
        away((status, code), nobody.post(REGISTER, &credentials("new@example.com"))).await;
        away((status, code), nobody.get("/api/v1/auth/health")).await;
        let body = json!({ "refresh_token": "any-refresh-token" });
        away((status, code), nobody.post(REFRESH, &body)).await;
        // What needs no call works, and what can do without one as well.
        quickly("balance", ada.get(BALANCE)).await.ok();
        assert_eq!(quickly("me", ada.get(ME)).await.ok()["email"], "ada@example.com");
        let job = ada.submit_quick("while it is away").await;
        ada.wait_for(&job, "completed").await;
        // Somebody new with a known key too.
        let newcomer = sim.add_person(&format!("{what}@example.com"));
        with(&server, &sim.token(newcomer)).get(BALANCE).await.ok();
    }
    // A key that cannot be fetched now may well be right: nobody is signed out for it.
    sim.rotate(Kind::Rs256);
    let turned = with(&server, &sim.token(id));
    quickly("a new key", turned.get(BALANCE))
        .await
        .problem(503, "service_unavailable");
    proxy.resume();
    eventually("the new key", SOON, || async {
        let status = turned.get(BALANCE).await.status.as_u16();
        assert!([200, 503].contains(&status), "{status}");
        (status == 200).then_some(())
    })
    .await;
    nobody.post(LOGIN, &credentials("ada@example.com")).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_while_the_account_service_is_away() {
    let (sim, proxy, options) = behind_a_proxy(Settings::default()).await;
    proxy.refuse().await;
    let server = Server::with(options).await;
    let (_, ada) = person(&sim, &server, "ada@example.com");
    quickly("no keys yet", ada.get(BALANCE))
        .await
        .problem(503, "service_unavailable");
    proxy.accept().await;
    eventually("the keys", SOON, || async {
        let status = ada.get(BALANCE).await.status.as_u16();
        assert!([200, 503].contains(&status), "{status}");
        (status == 200).then_some(())
    })
    .await;
    assert!(server.log_text().contains("keys cannot be fetched"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_account_service_is_waited_for_within_bounds() {
    let (sim, server) = pair().await;
    sim.add_person("ada@example.com");
    let nobody = server.anonymous();
    let grant = "/token?grant_type=password";
    sim.fault(grant, Fault::Late(Duration::from_millis(1500)));
    quickly("slow", nobody.post(LOGIN, &credentials("ada@example.com")))
        .await
        .ok();
    sim.fault(grant, Fault::Late(Duration::from_secs(30)));
    let late = quickly("too slow", nobody.post(LOGIN, &credentials("ada@example.com"))).await;
    late.problem(504, "gateway_timeout");
    // Both halves of a registration share one budget.
    sim.fault("/admin/users", Fault::Late(Duration::from_secs(2)));
    let late = quickly("both", nobody.post(REGISTER, &credentials("bob@example.com"))).await;
    late.problem(504, "gateway_timeout");
    assert_eq!(sim.asked("/admin/users"), 1);
    sim.heal();
    nobody.post(LOGIN, &credentials("bob@example.com")).await.ok();
}
