//! The way up: an installation that has lived, through the real binary, and what its people find afterwards.

use serde_json::{Value, json};
use tests::fal_sim::{Action, FalSim, Options as SimOptions, Point, Settings};
use tests::harness::{Client, FAL_KEY, Options, PASSWORD, SOON, Server, eventually};

use super::{database, rows, with_password};

const FAL_MODEL: &str = "fal-ai/imagen4/preview/ultra";

/// An embedded server in whose database something of everything happened, and its people.
struct Town {
    server: Server,
    ada: Client,
    bob: Client,
    completed: String,
    unknown: String,
    hanging: Vec<String>,
    queued: String,
}

async fn lived_in(sim: &FalSim) -> Town {
    let server = Server::with(Options::new().fal(sim)).await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let project = json!({"name": "Castles ☃", "description": "d", "tags": ["a"], "metadata": {"x": 1.5, "é": null}});
    let project = ada.post("/api/v1/projects", &project).await.json();
    let body = json!({
        "model_id": "sandbox/image", "prompt": "in a project \"quoted\" \\ ☃", "project_id": project["id"],
        "parameters": {"image_size": "square", "latency_ms": 0, "unheard_of": 1},
    });
    let completed = tests::harness::id_of(&ada.submit_with_key(&body, "one").await.ok());
    ada.wait_for(&completed, "completed").await;
    ada.post_empty(&format!("/api/v1/generations/{completed}/favorite"))
        .await
        .ok();
    let failing = json!({"image_size": "square", "outcome": "fail", "latency_ms": 0});
    let failing = ada.submit("sandbox/image", "fails", failing).await;
    ada.wait_for(&failing, "failed").await;
    ada.post("/api/v1/auth/refresh", &json!({"refresh_token": bob.refresh_token}))
        .await
        .ok();
    server
        .velro(&["credits", "grant", &ada.email, "25", "--key", "g1"])
        .ok();

    let key = ada.post("/api/v1/keys", &json!({"name": "a program"})).await.ok();
    let program = ada.with_token(key["key"].as_str().unwrap());
    let by_program = program.submit_quick("by a program").await;
    ada.wait_for(&by_program, "completed").await;
    ada.post("/api/v1/credits/purchase", &json!({"package_id": "starter"}))
        .await
        .ok();
    let code = [
        "codes",
        "create",
        "11",
        "--code",
        "WELCOME-2027",
        "--note",
        "for the copy",
    ];
    server.velro(&code).ok();
    ada.post("/api/v1/credits/redeem", &json!({"code": "welcome 2027"}))
        .await
        .ok();
    for what in ["pause", "resume"] {
        server
            .velro(&["providers", what, "fal", "--reason", "for the copy"])
            .ok();
    }

    // Two of which nobody knows, one of them decided by an operator.
    let mut unknown = Vec::new();
    for number in 0..2 {
        sim.fault(Point::Submit, Action::Cut, 1);
        let id = ada.submit(FAL_MODEL, &format!("unclear {number}"), json!({})).await;
        eventually("it is unknown", SOON, || async {
            let open = server.velro(&["generations", "resolve"]).ok();
            open.contains(&id).then_some(())
        })
        .await;
        unknown.push(id);
    }
    let decided = unknown.pop().unwrap();
    server.velro(&["generations", "resolve", &decided, "--refund"]).ok();

    // Four of one person run; the others wait.
    let mut hanging = Vec::new();
    for number in 0..4 {
        let parameters = json!({"image_size": "square", "outcome": "hang"});
        let id = ada
            .submit("sandbox/image", &format!("hangs {number}"), parameters)
            .await;
        hanging.push(id);
    }
    let queued = ada.submit_quick("its turn comes elsewhere").await;
    let cancelled = ada.submit_quick("never").await;
    ada.cancel(&cancelled).await.ok();
    assert_eq!(ada.status(&queued).await["status"], "queued");
    Town {
        server,
        ada,
        bob,
        completed,
        unknown: unknown.pop().unwrap(),
        hanging,
        queued,
    }
}

async fn simulator() -> FalSim {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..Settings::default()
    };
    FalSim::start(SimOptions { port: 0, settings }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_moves_up_with_everything_it_has() {
    let (database, sim) = (database().await, simulator().await);
    let to = with_password(&database.url);
    let mut town = lived_in(&sim).await;
    let (balance, statement) = (town.ada.balance().await, town.ada.transactions().await);
    let pictures = town.ada.status(&town.completed).await["output_urls"].clone();
    let history = ids(&town.ada.generations().await);
    town.server.terminate();
    let file = town.server.path().join("data/velro.db");
    // What only Stripe says.
    let stripe = "INSERT INTO payment_events (id, kind, order_id, outcome, created_at, received_at) SELECT 'evt_1', \
                  'checkout.session.expired', id, 'noted', created_at, created_at FROM orders; \
                  INSERT INTO payment_reversals (id, payment_intent, kind, amount_minor, currency, state, created_at, \
                  updated_at) VALUES ('re_1', 'pi_1', 'refund', 5, 'usd', 'valid', 1, 1)";
    let mut conn = rows::sqlite(&file).await;
    sqlx::raw_sql(stripe).execute(&mut conn).await.unwrap();
    sqlx::Connection::close(conn).await.unwrap();

    let said = town.server.velro(&["db", "copy", "--to", &to]).ok();
    for told in ["generations", "both ledgers agree", "Set DATABASE_URL", "outputs"] {
        assert!(said.contains(told), "nothing says {told:?} in\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    for (table, rows) in rows::same(&file, &database.url).await {
        assert!(
            !rows.is_empty(),
            "nothing to copy in {table}: the test shows too little"
        );
    }
    let open = town.server.verify_ledger().unwrap();
    town.server.change(|options| options.env("DATABASE_URL", &database.url));
    assert_eq!(town.server.verify_ledger().unwrap(), open, "open holds of the copy");

    // The same folder, the other database: nobody notices.
    town.server.restart().await;
    let Town { server, ada, .. } = &town;
    assert_eq!(ada.get("/api/v1/auth/me").await.ok()["email"], json!(ada.email));
    assert_eq!((ada.balance().await, ada.transactions().await), (balance, statement));
    assert_eq!(ids(&ada.generations().await), history);
    let picture = ada.get(pictures[0].as_str().unwrap()).await.expect(200);
    assert!(picture.bytes.starts_with(b"\x89PNG"), "a link from before the move");
    let renewed = json!({"refresh_token": ada.refresh_token});
    let mut renewed_ada = ada.clone();
    renewed_ada.adopt(&ada.post("/api/v1/auth/refresh", &renewed).await.ok());
    let mut bob = town.bob.clone();
    bob.login(PASSWORD).await;
    let used = json!({"refresh_token": town.bob.refresh_token});
    bob.post("/api/v1/auth/refresh", &used)
        .await
        .problem(401, "unauthorized");

    // What ran goes on, what waited has its turn, and what was decided stays decided.
    for id in &town.hanging {
        ada.cancel(id).await.ok();
        ada.wait_for(id, "cancelled").await;
    }
    let done = ada.wait_for(&town.queued, "completed").await;
    let picture = ada.get(done["output_urls"][0].as_str().unwrap()).await.expect(200);
    assert!(picture.bytes.starts_with(b"\x89PNG"));
    server
        .velro(&["generations", "resolve", &town.unknown, "--refund"])
        .ok();
    ada.wait_for(&town.unknown, "failed").await;
    server
        .velro(&["credits", "grant", &ada.email, "25", "--key", "g1"])
        .ok();
    assert_eq!(
        ada.statement().await.iter().filter(|line| *line == "bonus +25").count(),
        1
    );
    let newest = ada.submit_quick("made here").await;
    ada.wait_for(&newest, "completed").await;
    town.server.terminate();

    // Now the copy is the installation, and the old one must not be laid over it.
    let refused = town
        .server
        .velro(&["db", "copy", "--from", "sqlite:data/velro.db", "--to", &to]);
    let said = refused.fails();
    assert!(
        said.contains("used since the last copy") && said.contains("nothing was changed"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

fn ids(generations: &[Value]) -> Vec<(Value, Value)> {
    let short = |one: &Value| (one["id"].clone(), one["is_favorite"].clone());
    generations.iter().map(short).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_follows_an_installation_that_lives_on() {
    let database = database().await;
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let project = |name: &str| json!({"name": name});
    let doomed = ada.post("/api/v1/projects", &project("doomed")).await.json();
    ada.post("/api/v1/projects", &project("kept")).await;
    let body = json!({
        "model_id": "sandbox/image", "prompt": "in a project", "project_id": doomed["id"],
        "parameters": {"image_size": "square", "latency_ms": 0},
    });
    let first = tests::harness::id_of(&ada.submit_with_key(&body, "k").await.ok());
    ada.wait_for(&first, "completed").await;
    let hanging = json!({"image_size": "square", "outcome": "hang"});
    let hanging = ada.submit("sandbox/image", "hangs", hanging).await;
    ada.wait_for(&hanging, "processing").await;
    server.terminate();
    let file = server.path().join("data/velro.db");
    server.change(|options| options.env("DATABASE_URL", &database.url));
    server.velro(&["db", "copy"]).ok();
    let before = rows::same(&file, &database.url).await;

    // Nothing happened, so nothing happens.
    let said = server.velro(&["db", "copy"]).ok();
    assert!(said.contains(" 0 new, 0 changed, 0 removed"), "{said}");
    assert_eq!(rows::same(&file, &database.url).await, before);

    server.change(|options| options.without_env("DATABASE_URL"));
    server.restart().await;
    ada.cancel(&hanging).await.ok();
    ada.wait_for(&hanging, "cancelled").await;
    ada.delete(&format!("/api/v1/projects/{}", doomed["id"].as_str().unwrap()))
        .await;
    ada.post_empty(&format!("/api/v1/generations/{first}/favorite"))
        .await
        .ok();
    let bob = server.register("bob").await;
    let second = bob.submit_quick("since then").await;
    bob.wait_for(&second, "completed").await;
    server.terminate();
    server.change(|options| options.env("DATABASE_URL", &database.url));
    let said = server.velro(&["db", "copy"]).ok();
    assert!(said.contains("1 removed"), "{said}");
    let after = rows::same(&file, &database.url).await;
    assert_eq!((after["projects"].len(), after["users"].len()), (1, 2));

    // Numbers go on behind those of the source.
    server.restart().await;
    let third = bob.submit_quick("made here").await;
    bob.wait_for(&third, "completed").await;
    assert_eq!(bob.statement().await.len(), 3);
    assert_eq!(ada.status(&first).await["status"], "completed");
}
