//! People, requests and moments for the cases, and the closing look at the books.

use serde_json::{Map, Value, json};
use velro::clock::Micros;
use velro::generation::{AttemptState, Generation, MediaType, Pending, PriceBasis, PublicError, StoredOutput};
use velro::id::{GenerationId, UserId};
use velro::ledger::Credits;
use velro::store::{
    Arrival, BeginAttempt, Created, IdempotencyKey, LedgerReport, NewGeneration, NewUser, Role, SaveStep, Saved,
    Settle, Settled, StatementFilter, StatementLine, Store, Submitted, User, Verdict, Work,
};

/// The model of every request.
pub const MODEL: &str = "sandbox/painter";
/// The worker of most attempts.
pub const WORKER: &str = "worker-1";

/// A moment, in seconds of the suite's own calendar.
pub fn at(seconds: i64) -> Micros {
    Micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

/// A person to create.
pub fn new_user(email: &str, start_credits: i64) -> NewUser {
    NewUser {
        id: UserId::new(),
        email: email.into(),
        password_hash: Some("$argon2id$...".into()),
        full_name: Some("Ada Lovelace".into()),
        role: Role::User,
        start_credits: Credits(start_credits),
        now: at(0),
    }
}

/// Somebody whose account is kept elsewhere, as a token of theirs says.
pub fn arrival(id: UserId, email: &str, start_credits: i64) -> Arrival {
    Arrival {
        id,
        email: email.into(),
        full_name: Some("Ada Lovelace".into()),
        role: Role::User,
        fresh: false,
        signed_in: false,
        start_credits: Credits(start_credits),
        now: at(0),
    }
}

/// Somebody with this many credits.
pub async fn somebody(store: &dyn Store, credits: i64) -> User {
    let id = UserId::new();
    let user = NewUser {
        id,
        ..new_user(&format!("{id}@example.com"), credits)
    };
    match store.create_user(user).await.unwrap() {
        Created::New(user) => user,
        Created::Taken => panic!("a fresh address is taken"),
    }
}

/// A request as the intake makes it.
pub fn request(user: UserId, price: i64) -> NewGeneration {
    let mut parameters = Map::new();
    parameters.insert("num_images".into(), json!(4));
    NewGeneration {
        id: GenerationId::new(),
        user_id: user,
        project_id: None,
        model_id: MODEL.into(),
        provider: "sandbox".into(),
        media_type: MediaType::Image,
        prompt: "a nice cat".into(),
        negative_prompt: None,
        reference_image_url: None,
        parameters,
        dropped_parameters: Vec::new(),
        provider_model: "painter".into(),
        provider_input: r#"{"prompt":"a nice cat"}"#.into(),
        fallbacks: Vec::new(),
        price: Credits(price),
        price_basis: PriceBasis {
            base: Credits(price / 4),
            factors: vec![("num_images".into(), 4)],
            count: Some(4),
        },
        idempotency: None,
        api_key_id: None,
        trace_context: None,
        now: at(10),
    }
}

/// A request with an idempotency key.
pub fn keyed(user: UserId, price: i64, key: &str, fingerprint: &str) -> NewGeneration {
    NewGeneration {
        idempotency: Some(IdempotencyKey {
            key: key.into(),
            fingerprint: fingerprint.into(),
        }),
        ..request(user, price)
    }
}

/// Submits what must be accepted.
pub async fn submit(store: &dyn Store, request: NewGeneration) -> Generation {
    match store.submit(request).await.unwrap() {
        Submitted::New { generation, .. } => *generation,
        other => panic!("refused: {other:?}"),
    }
}

/// To begin a generation as `worker`, with a lease until `at(100)`.
pub fn begin(id: GenerationId, worker: &str) -> BeginAttempt {
    BeginAttempt {
        generation_id: id,
        attempt_id: velro::id::AttemptId::new(),
        worker: worker.into(),
        lease_until: at(100),
        deadline_at: at(1000),
        now: at(20),
    }
}

/// A generation of `price` that [`WORKER`] has begun.
pub async fn begun(store: &dyn Store, user: UserId, price: i64) -> Work {
    let generation = submit(store, request(user, price)).await;
    let (work, _) = store
        .begin_attempt(begin(generation.id, WORKER))
        .await
        .unwrap()
        .unwrap();
    work
}

/// A step of `work` to `state`.
pub fn step(work: &Work, state: AttemptState) -> SaveStep {
    SaveStep {
        attempt_id: work.attempt.id,
        worker: WORKER.into(),
        steps: work.attempt.steps,
        state,
        plugin_state: None,
        pending: Pending::Wait,
        remote_id: None,
        due_at: at(40),
        clear_inbox: false,
        progress: None,
        now: at(30),
    }
}

/// A generation whose attempt has got to `state`, as [`WORKER`] knows it.
pub async fn brought_to(store: &dyn Store, user: UserId, price: i64, state: AttemptState) -> Work {
    let mut work = begun(store, user, price).await;
    if state != AttemptState::Prepared {
        let saved = store.save_step(step(&work, state)).await.unwrap();
        assert!(matches!(saved, Saved::Ok { .. }), "{saved:?}");
        work.attempt.steps += 1;
        work.attempt.state = state;
    }
    work
}

/// A file.
pub fn output(id: GenerationId, index: u32) -> StoredOutput {
    StoredOutput {
        index,
        key: format!("{id}/{index}.png"),
        content_type: "image/png".into(),
        bytes: 1234,
        sha256: "ab".repeat(32),
        width: Some(64),
        height: Some(48),
    }
}

/// Delivered: one file, worth this much.
pub fn delivered(work: &Work, worth: i64) -> Verdict {
    let mut meta = Map::new();
    meta.insert("seed".into(), json!(7));
    Verdict::Completed {
        outputs: vec![output(work.generation.id, 0)],
        worth: Credits(worth),
        billed: Some(json!({"usd_micros": 3_000})),
        meta,
    }
}

/// Not delivered.
pub fn failed(state: AttemptState) -> Verdict {
    Verdict::Failed {
        error: PublicError {
            code: "provider_failed".into(),
            message: "The provider could not make this picture.".into(),
        },
        detail: "HTTP 500 from the provider".into(),
        attempt_state: state,
    }
}

/// To end `work` as [`WORKER`].
pub fn settle(work: &Work, verdict: Verdict) -> Settle {
    Settle {
        generation_id: work.generation.id,
        attempt_id: work.attempt.id,
        worker: WORKER.into(),
        steps: work.attempt.steps,
        verdict,
        now: at(50),
    }
}

/// Settles what must be won.
pub async fn won(store: &dyn Store, settle: Settle) -> Generation {
    match store.settle(settle).await.unwrap() {
        Settled::Won { generation, .. } => *generation,
        Settled::Lost => panic!("lost"),
    }
}

/// A bit of everything: charged, refunded, of unknown outcome, queued.
pub async fn lived_in(store: &dyn Store) -> UserId {
    let user = somebody(store, 1000).await.id;
    let work = brought_to(store, user, 40, AttemptState::Accepted).await;
    won(store, settle(&work, delivered(&work, 30))).await;
    let work = brought_to(store, user, 50, AttemptState::Accepted).await;
    won(store, settle(&work, failed(AttemptState::Finished))).await;
    brought_to(store, user, 60, AttemptState::Unknown).await;
    submit(store, keyed(user, 70, "key", "print")).await;
    in_order(store).await;
    user
}

/// `(balance, held)`.
pub async fn money(store: &dyn Store, user: UserId) -> (i64, i64) {
    let balance = store.balance(user).await.unwrap().expect("an account");
    (balance.balance.0, balance.held.0)
}

/// All lines, oldest first.
pub async fn lines(store: &dyn Store, user: UserId) -> Vec<StatementLine> {
    let filter = StatementFilter {
        limit: 100_000,
        ..StatementFilter::default()
    };
    let mut page = store.statement(user, filter).await.unwrap();
    assert_eq!(page.items.len() as u64, page.total);
    page.items.reverse();
    page.items
}

/// `(type, amount, balance_after)` of all lines, oldest first.
pub async fn amounts(store: &dyn Store, user: UserId) -> Vec<(&'static str, i64, i64)> {
    let lines = lines(store, user).await;
    lines
        .iter()
        .map(|l| (l.line_type.as_str(), l.amount.0, l.balance_after.0))
        .collect()
}

/// Names and data of all events of a generation.
pub async fn told(store: &dyn Store, generation: &Generation) -> Vec<(&'static str, Value)> {
    let events = store.events(generation.user_id, generation.id, 0).await.unwrap();
    events.into_iter().map(|e| (e.kind.as_str(), e.data)).collect()
}

/// The closing assertion of every case: the books agree in every way the store can check.
pub async fn in_order(store: &dyn Store) -> LedgerReport {
    let report = store.verify_ledger().await.unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    report
}
