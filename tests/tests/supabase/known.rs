//! How people who live at the account service become known here.

use serde_json::{Value, json};
use tests::gotrue_sim::{ANON_KEY, GoTrueSim, PASSWORD, Settings};
use tests::harness::{Server, race};
use uuid::Uuid;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn register_login_refresh_and_me_answer_as_with_local_accounts() {
    let (sim, server) = pair().await;
    let nobody = server.anonymous();
    let registered = nobody.post(REGISTER, &credentials("Ada@Example.com")).await.ok();
    let logged_in = nobody.post(LOGIN, &credentials("ada@example.com")).await.ok();
    let refreshed = refresh(&nobody, logged_in["refresh_token"].as_str().unwrap())
        .await
        .ok();
    let at_home = Server::start().await;
    let local = at_home
        .anonymous()
        .post(REGISTER, &credentials("ada@example.com"))
        .await
        .ok();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for session in [&registered, &logged_in, &refreshed] {
        assert_eq!(names(session), names(&local));
        assert_eq!(names(&session["user"]), names(&local["user"]));
        assert_eq!(
            (&session["token_type"], &session["expires_in"]),
            (&json!("Bearer"), &json!(3600))
        );
        let user = &session["user"];
        assert_eq!(
            (&user["email"], &user["full_name"]),
            (&json!("ada@example.com"), &json!("Ada Lovelace"))
        );
        assert_eq!(
            (&user["credits_balance"], &user["current_plan"]),
            (&json!(1000), &json!("free"))
        );
        assert_eq!(user["identities"][0]["provider"], "email");
        assert!(user["email_confirmed_at"].is_string(), "{user}");
    }
    let id = registered["user"]["id"].clone();
    assert_eq!(sim.person("ada@example.com").unwrap().id.to_string(), id);
    let mut ada = nobody.clone();
    ada.adopt(&refreshed);
    let me = ada.get(ME).await.ok();
    assert_eq!((&me["id"], &me["is_operator"]), (&id, &json!(false)));
    assert_eq!(
        ada.get("/api/v1/auth/whoami").await.ok()["metadata"]["full_name"],
        "Ada Lovelace"
    );

    let check = async |email: &str| {
        let path = format!("/api/v1/auth/check-email?email={email}");
        nobody.post_empty(&path).await.ok()["available"].clone()
    };
    assert_eq!(check("ada@example.com").await, false);
    assert_eq!(check("bob@example.com").await, true);
    let health = nobody.get("/api/v1/auth/health").await.ok();
    assert_eq!(
        (&health["provider"], &health["supabase_url"]),
        (&json!("supabase"), &json!(sim.project_url))
    );
    assert_eq!(
        nobody.get("/__version").await.ok()["configuration"]["auth_mode"],
        "supabase"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_first_requests_make_one_account_with_start_credits() {
    let (sim, server) = pair().await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    // Half of them from other sessions, some of them right after registering elsewhere.
    let others: Vec<_> = (0..25).map(|_| with(&server, &sim.token(id))).collect();
    let answers = race(50, |n| {
        let client = if n % 2 == 0 { &ada } else { &others[n / 2] };
        client.get(BALANCE)
    });
    for answer in answers.await {
        assert_eq!(answer.ok()["balance"], 1000);
    }
    let lines = ada.get("/api/v1/credits/transactions").await.ok();
    assert_eq!(lines["total"], 1, "{lines}");
    server.verify_ledger().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_addresses_follow_and_the_newest_owner_has_the_address() {
    let (sim, server) = pair().await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(BALANCE).await.ok();
    sim.change(id, |p| {
        p.email = "lovelace@example.com".into();
        p.user_metadata = json!({ "full_name": "Ada\u{7} King" });
    });
    // A token is as old as it is; the service knows how it is now.
    let me = ada.get(ME).await.ok();
    assert_eq!(
        (&me["email"], &me["full_name"]),
        (&json!("lovelace@example.com"), &json!("Ada King"))
    );
    // An older token changes nothing back, also not in a process that knows nobody.
    ada.get(BALANCE).await.ok();
    assert_eq!(
        ada.get("/api/v1/user/profile").await.ok()["email"],
        "lovelace@example.com"
    );

    // Deleted and registered again: another account, with the address of the first.
    sim.remove(id);
    let (second, newcomer) = person(&sim, &server, "lovelace@example.com");
    assert_ne!(id, second);
    assert_eq!(newcomer.get(BALANCE).await.ok()["balance"], 1000);
    assert_eq!(newcomer.get(ME).await.ok()["email"], "lovelace@example.com");
    // Whoever had it has none; their tokens run out by themselves.
    assert_eq!(ada.get("/api/v1/user/profile").await.ok()["email"], "");

    // Two swap their addresses, one after the other.
    let (third, bob) = person(&sim, &server, "bob@example.com");
    bob.get(ME).await.ok();
    sim.change(second, |p| p.email = "bob@example.com".into());
    sim.change(third, |p| p.email = "lovelace@example.com".into());
    for _ in 0..2 {
        assert_eq!(newcomer.get(ME).await.ok()["email"], "bob@example.com");
        assert_eq!(bob.get(ME).await.ok()["email"], "lovelace@example.com");
    }

    // By phone: no address at all, and none is made up for others to see.
    for _ in 0..2 {
        let id = sim.add_person("");
        let phone = with(&server, &sim.token(id));
        assert_eq!(phone.get(ME).await.ok()["email"], "");
        assert_eq!(phone.get("/api/v1/auth/whoami").await.ok()["email"], "");
        assert_eq!(phone.get("/api/v1/user/profile").await.ok()["email"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_changed_here_is_changed_there() {
    let (sim, server) = pair().await;
    let (_, ada) = person(&sim, &server, "ada@example.com");
    let change = |name: Value| json!({ "full_name": name, "display_name": "ada" });
    ada.put("/api/v1/user/profile", &change(json!("Ada King"))).await.ok();
    assert_eq!(
        sim.person("ada@example.com").unwrap().user_metadata["full_name"],
        "Ada King"
    );
    assert_eq!(ada.get(ME).await.ok()["full_name"], "Ada King");
    ada.put("/api/v1/user/profile", &change(Value::Null)).await.ok();
    assert!(
        sim.person("ada@example.com")
            .unwrap()
            .user_metadata
            .get("full_name")
            .is_none()
    );
    assert_eq!(ada.get(ME).await.ok()["full_name"], "");
    // What the service does not take is not changed here either.
    sim.fault("/user", tests::gotrue_sim::Fault::Gateway(503, "{}"));
    let refused = ada.put("/api/v1/user/profile", &change(json!("Ada Three"))).await;
    refused.problem(503, "service_unavailable");
    sim.heal();
    assert_eq!(ada.get("/api/v1/user/profile").await.ok()["full_name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_confirmed_address_makes_an_operator() {
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let options = sim
        .options()
        .env("OPERATOR_EMAILS", "boss@example.com,other@example.com");
    let server = Server::with(options).await;
    let is_operator = async |client: &tests::harness::Client| client.get(ME).await.ok()["is_operator"].clone();

    // Whoever registers here shows no mail: the address proves nothing.
    let nobody = server.anonymous();
    let mut fraud = nobody.clone();
    fraud.adopt(&nobody.post(REGISTER, &credentials("other@example.com")).await.ok());
    assert_eq!(is_operator(&fraud).await, false);
    // What people say about themselves proves nothing either.
    let id: Uuid = fraud.user_id.parse().unwrap();
    sim.change(id, |p| {
        p.user_metadata = json!({ "email_verified": true, "role": "operator" })
    });
    assert_eq!(is_operator(&fraud).await, false);

    let (id, boss) = person(&sim, &server, "boss@example.com");
    sim.change(id, |p| p.confirmed = false);
    boss.get(BALANCE).await.ok();
    assert_eq!(is_operator(&boss).await, false, "not confirmed");
    sim.change(id, |p| p.confirmed = true);
    assert_eq!(is_operator(&boss).await, true);
    // For good, as with `velro users promote`.
    sim.change(id, |p| p.email = "retired@example.com".into());
    assert_eq!(is_operator(&boss).await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_service_key_the_project_decides_how_people_register() {
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let options = sim.options().without_env("SUPABASE_SERVICE_ROLE_KEY");
    let server = Server::with(options.env("SUPABASE_PUBLISHABLE_KEY", ANON_KEY)).await;
    let nobody = server.anonymous();
    let session = nobody.post(REGISTER, &credentials("ada@example.com")).await.ok();
    assert_eq!(session["user"]["credits_balance"], 1000);
    nobody
        .post(REGISTER, &credentials("ada@example.com"))
        .await
        .problem(409, "email_taken");

    sim.set(|s| s.autoconfirm = false);
    let told = nobody.post(REGISTER, &credentials("bob@example.com")).await;
    let told = told.problem(403, "email_not_confirmed");
    assert!(
        told["detail"].as_str().unwrap().starts_with("The account was created"),
        "{told}"
    );
    nobody
        .post(LOGIN, &credentials("bob@example.com"))
        .await
        .problem(403, "email_not_confirmed");
    // The answer for an address that is known looks like success; it is none.
    nobody
        .post(REGISTER, &credentials("ada@example.com"))
        .await
        .problem(409, "email_taken");
    let id = sim.person("bob@example.com").unwrap().id;
    sim.change(id, |p| p.confirmed = true);
    nobody.post(LOGIN, &credentials("bob@example.com")).await.ok();
    assert_eq!(sim.asked("/admin/users"), 0);
    assert_eq!(sim.person("bob@example.com").unwrap().password, PASSWORD);
}
