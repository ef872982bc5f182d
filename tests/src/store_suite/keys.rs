//! API keys: made, changed, revoked, found by hash; their caps under any race.

use super::Stage;
use super::fixtures::*;
use std::sync::Arc;
use velro::generation::AttemptState;
use velro::id::{ApiKeyId, UserId};
use velro::ledger::Credits;
use velro::store::{ApiKey, ApiKeyChange, Created, NewApiKey, NewGeneration, Saved, Scope, Store, Submitted};

/// A key of `user`; its hash is its id.
fn new_key(user: UserId, cap: Option<i64>) -> NewApiKey {
    let id = ApiKeyId::new();
    NewApiKey {
        id,
        user_id: user,
        name: "renders".into(),
        hash: id.to_string(),
        hint: "velro_sk_x3Tf".into(),
        scopes: vec![Scope::Generate, Scope::Read],
        models: None,
        spending_cap: cap.map(Credits),
        expires_at: None,
        most: 100,
        now: at(1),
    }
}

async fn make(store: &dyn Store, key: NewApiKey) -> ApiKey {
    match store.create_api_key(key).await.unwrap() {
        Created::New(key) => key,
        Created::Taken => panic!("there is room for a key"),
    }
}

fn with(key: &ApiKey, price: i64) -> NewGeneration {
    NewGeneration {
        api_key_id: Some(key.id),
        ..request(key.user_id, price)
    }
}

async fn spent(store: &dyn Store, key: &ApiKey) -> i64 {
    let key = store.api_key(key.user_id, key.id).await.unwrap().unwrap();
    key.spent.0
}

pub async fn keys_are_their_owners(stage: &dyn Stage) {
    let store = stage.open().await;
    let (ada, bob) = (somebody(&*store, 100).await, somebody(&*store, 100).await);
    let new = NewApiKey {
        models: Some(vec!["sandbox/image".into(), "sandbox/video".into()]),
        expires_at: Some(at(500)),
        ..new_key(ada.id, Some(40))
    };
    let key = make(&*store, new.clone()).await;
    let told = (&key.name, &key.hint, &key.scopes, &key.models, key.spending_cap);
    assert_eq!(
        told,
        (&new.name, &new.hint, &new.scopes, &new.models, Some(Credits(40)))
    );
    assert_eq!(
        (key.spent, key.expires_at, key.revoked_at),
        (Credits(0), Some(at(500)), None)
    );
    let second = make(&*store, new_key(ada.id, None)).await;
    let listed: Vec<ApiKeyId> = store.api_keys(ada.id).await.unwrap().iter().map(|k| k.id).collect();
    assert_eq!(listed, [second.id, key.id]);
    assert_eq!(store.api_key(ada.id, key.id).await.unwrap().unwrap(), key);

    let held = store.api_key_by_hash(&new.hash).await.unwrap().unwrap();
    assert_eq!((held.key, held.email), (key.clone(), ada.email.clone()));
    assert!(store.api_key_by_hash("nobody's").await.unwrap().is_none());

    // Nobody else sees, changes or revokes it.
    assert!(store.api_keys(bob.id).await.unwrap().is_empty());
    assert!(store.api_key(bob.id, key.id).await.unwrap().is_none());
    let change = ApiKeyChange {
        name: Some("taken over".into()),
        ..ApiKeyChange::default()
    };
    assert!(
        store
            .change_api_key(bob.id, key.id, change, at(2))
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.revoke_api_key(bob.id, key.id, at(2)).await.unwrap().is_none());
    assert_eq!(store.api_key(ada.id, key.id).await.unwrap().unwrap(), key);

    // No more than allowed; what is revoked does not count.
    let full = NewApiKey {
        most: 2,
        ..new_key(ada.id, None)
    };
    assert_eq!(store.create_api_key(full.clone()).await.unwrap(), Created::Taken);
    store.revoke_api_key(ada.id, second.id, at(3)).await.unwrap().unwrap();
    make(&*store, full).await;
    in_order(&*store).await;
}

pub async fn a_key_changes_where_it_is_told_to(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let key = make(&*store, new_key(user, Some(40))).await;
    let change = async |change: ApiKeyChange| store.change_api_key(user, key.id, change, at(9)).await.unwrap();
    let named = ApiKeyChange {
        name: Some("other".into()),
        ..ApiKeyChange::default()
    };
    let renamed = change(named).await.unwrap();
    let expected = ApiKey {
        name: "other".into(),
        updated_at: at(9),
        ..key.clone()
    };
    assert_eq!(renamed, expected);
    let opened = ApiKeyChange {
        scopes: Some(vec![Scope::Billing]),
        models: Some(Some(vec!["m".into()])),
        spending_cap: Some(None),
        expires_at: Some(Some(at(77))),
        ..ApiKeyChange::default()
    };
    let opened = change(opened).await.unwrap();
    let told = (opened.scopes, opened.models, opened.spending_cap, opened.expires_at);
    let expected = (vec![Scope::Billing], Some(vec!["m".to_owned()]), None, Some(at(77)));
    assert_eq!(told, expected);
    let cleared = ApiKeyChange {
        models: Some(None),
        expires_at: Some(None),
        ..ApiKeyChange::default()
    };
    let cleared = change(cleared).await.unwrap();
    assert_eq!((cleared.models, cleared.expires_at), (None, None));

    // Revoked once and for good, and everybody who checks tokens hears of it.
    let revoked = store.revoke_api_key(user, key.id, at(20)).await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(at(20)));
    let again = store.revoke_api_key(user, key.id, at(30)).await.unwrap().unwrap();
    assert_eq!(again.revoked_at, Some(at(20)));
    assert!(change(ApiKeyChange::default()).await.is_none());
    let ended = store.revoked_since(at(10)).await.unwrap();
    assert!(
        ended
            .iter()
            .any(|(id, when)| id.uuid() == key.id.uuid() && *when == at(20))
    );

    // The newest use counts, whatever comes late.
    for (used, expected) in [(at(50), at(50)), (at(40), at(50)), (at(60), at(60))] {
        store.touch_api_keys(&[(key.id, used)]).await.unwrap();
        let key = store.api_key(user, key.id).await.unwrap().unwrap();
        assert_eq!(key.last_used_at, Some(expected));
    }
    in_order(&*store).await;
}

pub async fn a_cap_counts_what_is_held_and_captured(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let key = make(&*store, new_key(user, Some(100))).await;
    let first = submit(&*store, with(&key, 60)).await;
    assert_eq!((first.api_key_id, spent(&*store, &key).await), (Some(key.id), 60));
    let refused = store.submit(with(&key, 41)).await.unwrap();
    let Submitted::CapReached { required, remaining } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((required, remaining), (Credits(41), Credits(40)));
    // Without the key it is the owner's own money.
    submit(&*store, request(user, 41)).await;

    // What is released may be spent again, what is captured may not.
    let (mut work, _) = store.begin_attempt(begin(first.id, WORKER)).await.unwrap().unwrap();
    let saved = store.save_step(step(&work, AttemptState::Accepted)).await.unwrap();
    assert!(matches!(saved, Saved::Ok { .. }), "{saved:?}");
    work.attempt.steps += 1;
    won(&*store, settle(&work, delivered(&work, 45))).await;
    assert_eq!(spent(&*store, &key).await, 45);
    let second = submit(&*store, with(&key, 55)).await;
    assert!(matches!(
        store.submit(with(&key, 1)).await.unwrap(),
        Submitted::CapReached { .. }
    ));
    store.cancel(user, second.id, at(40)).await.unwrap().unwrap();
    assert_eq!(spent(&*store, &key).await, 45);

    // A cap below what is spent stops everything; none lets everything through.
    for (cap, passes) in [(Some(10), false), (None, true)] {
        let change = ApiKeyChange {
            spending_cap: Some(cap.map(Credits)),
            ..ApiKeyChange::default()
        };
        store
            .change_api_key(user, key.id, change, at(41))
            .await
            .unwrap()
            .unwrap();
        let outcome = store.submit(with(&key, 500)).await.unwrap();
        assert_eq!(matches!(outcome, Submitted::New { .. }), passes, "{outcome:?}");
    }
    in_order(&*store).await;
}

pub async fn an_ended_key_spends_nothing(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let stranger = somebody(&*store, 1000).await.id;
    let expiring = NewApiKey {
        expires_at: Some(at(10)),
        ..new_key(user, None)
    };
    let expired = make(&*store, expiring).await;
    let revoked = make(&*store, new_key(user, None)).await;
    store.revoke_api_key(user, revoked.id, at(5)).await.unwrap().unwrap();
    let theirs = make(&*store, new_key(stranger, None)).await;
    for key in [&expired, &revoked, &theirs] {
        let request = NewGeneration {
            user_id: user,
            ..with(key, 5)
        };
        assert!(matches!(store.submit(request).await.unwrap(), Submitted::KeyEnded));
    }
    assert_eq!(money(&*store, user).await, (1000, 0));
    in_order(&*store).await;
}

pub async fn parallel_submits_never_pass_a_cap(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 10_000).await.id;
    let key = make(&*store, new_key(user, Some(100))).await;
    // A second store is a second process.
    let other = stage.open().await;
    let mut calls = Vec::new();
    for n in 0..50 {
        let store: Arc<dyn Store> = Arc::clone(if n % 2 == 0 { &store } else { &other });
        let request = with(&key, 7);
        calls.push(tokio::spawn(async move { store.submit(request).await.unwrap() }));
    }
    let mut accepted = 0;
    for call in calls {
        match call.await.unwrap() {
            Submitted::New { .. } => accepted += 1,
            Submitted::CapReached { remaining, .. } => assert!(remaining < Credits(7)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accepted, spent(&*store, &key).await), (14, 98));
    assert_eq!(money(&*store, user).await, (10_000, 98));
    drop(other);
    in_order(&*store).await;
}
