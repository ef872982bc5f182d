//! What happens at once, and what happens when somebody goes away in the middle.

use super::Stage;
use super::fixtures::*;
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::sync::Barrier;
use velro::generation::{AttemptState, Status};
use velro::id::UserId;
use velro::store::{
    Arrival, Cancelled, Created, GenerationFilter, Origin, Rotated, Rotation, Settled, Store, StoreError, Submitted,
};

/// Runs `calls` as tasks that start together.
async fn at_once<T: Send + 'static>(calls: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let gate = Arc::new(Barrier::new(calls.len()));
    let tasks = calls.into_iter().map(|call| {
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            gate.wait().await;
            call.await
        })
    });
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

pub async fn parallel_submits_spend_to_the_last_credit(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let calls = (0..40).map(|_| {
        let store = Arc::clone(&store);
        async move { store.submit(request(user, 45)).await.unwrap() }
    });
    let results = at_once(calls.collect()).await;
    let new = results.iter().filter(|r| matches!(r, Submitted::New { .. })).count();
    let refused = results
        .iter()
        .filter(
            |r| matches!(r, Submitted::Insufficient { required, available } if (required.0, available.0) == (45, 10)),
        )
        .count();
    assert_eq!((new, refused), (22, 18));
    assert_eq!(money(&*store, user).await, (1000, 990));
    let report = in_order(&*store).await;
    assert_eq!(report.open_holds, 22);
}

/// A thousand generations, each cancelled by its owner and completed by its worker at the same moment.
pub async fn cancel_and_settle_have_one_winner(stage: &dyn Stage) {
    const ROUNDS: usize = 20;
    const WIDTH: usize = 50;
    let store = stage.open().await;
    let user = somebody(&*store, 10_000).await.id;
    let (mut cancelled, mut completed) = (0, 0);
    for round in 0..ROUNDS {
        let works = join_all((0..WIDTH).map(|_| begun(&*store, user, 3))).await;
        let pairs = works.into_iter().enumerate().map(|(i, work)| {
            let (a, b) = (Arc::clone(&store), Arc::clone(&store));
            let id = work.generation.id;
            let cancel = async move { a.cancel(user, id, at(60)).await.unwrap().unwrap() };
            let settle = async move { b.settle(settle(&work, delivered(&work, 3))).await.unwrap() };
            async move {
                // Who is spawned first changes from pair to pair, so that both get their chances.
                if (i + round) % 2 == 0 {
                    let cancel = tokio::spawn(cancel);
                    let settle = tokio::spawn(settle);
                    (cancel.await.unwrap(), settle.await.unwrap())
                } else {
                    let settle = tokio::spawn(settle);
                    tokio::task::yield_now().await;
                    let cancel = tokio::spawn(cancel);
                    (cancel.await.unwrap(), settle.await.unwrap())
                }
            }
        });
        for outcome in at_once(pairs.collect()).await {
            match outcome {
                (Cancelled::Now { .. }, Settled::Lost) => cancelled += 1,
                (Cancelled::Already(g), Settled::Won { generation, .. }) => {
                    assert_eq!(*g, *generation);
                    completed += 1;
                }
                other => panic!("not exactly one winner: {other:?}"),
            }
        }
    }
    assert_eq!(cancelled + completed, 1000);
    assert!(
        cancelled > 0 && completed > 0,
        "no race: {cancelled} cancelled, {completed} completed"
    );
    assert_eq!(money(&*store, user).await, (10_000 - 3 * completed, 0));
    let stats = store.generation_stats(user, None).await.unwrap();
    assert_eq!(
        (stats.cancelled as i64, stats.completed as i64, stats.unfinished),
        (cancelled, completed, 0)
    );
    let report = in_order(&*store).await;
    assert_eq!((report.open_holds, report.transfers as i64), (0, 1 + completed));
}

pub async fn a_refresh_token_used_twice_at_once_is_caught(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    for round in 0..20 {
        let old = format!("old-{round}");
        let session = super::people::session(&*store, user, &old).await;
        let calls = (0..2).map(|i| {
            let store = Arc::clone(&store);
            let rotation = Rotation {
                old_hash: old.clone(),
                new_hash: format!("new-{round}-{i}"),
                new_expires_at: at(2000),
                origin: Origin::default(),
                now: at(10),
            };
            async move { store.rotate_refresh(rotation).await.unwrap() }
        });
        let results = at_once(calls.collect()).await;
        let good = results.iter().filter(|r| matches!(r, Rotated::Ok { .. })).count();
        let caught = results
            .iter()
            .filter(|r| matches!(r, Rotated::Reused { session: s } if *s == session))
            .count();
        assert_eq!((good, caught), (1, 1));
        assert!(store.revoked_since(at(10)).await.unwrap().contains(&(session, at(10))));
        for i in 0..2 {
            let dead = Rotation {
                old_hash: format!("new-{round}-{i}"),
                new_hash: format!("never-{round}-{i}"),
                new_expires_at: at(2000),
                origin: Origin::default(),
                now: at(11),
            };
            assert!(matches!(store.rotate_refresh(dead).await.unwrap(), Rotated::Invalid));
        }
    }
    in_order(&*store).await;
}

pub async fn a_grant_at_once_is_given_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let calls = (0..20).map(|_| {
        let store = Arc::clone(&store);
        async move {
            store
                .grant(super::credits::grant(user, 50, Some("payment-1")))
                .await
                .unwrap()
                .unwrap()
        }
    });
    let results = at_once(calls.collect()).await;
    assert_eq!(results.iter().filter(|g| !g.replayed).count(), 1);
    assert!(results.iter().all(|g| g.available.0 == 50));
    assert_eq!(money(&*store, user).await, (50, 0));
    in_order(&*store).await;
}

pub async fn an_email_is_taken_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let calls = (0..10).map(|_| {
        let store = Arc::clone(&store);
        async move { store.create_user(new_user("ada@example.com", 10)).await.unwrap() }
    });
    let results = at_once(calls.collect()).await;
    assert_eq!(results.iter().filter(|c| matches!(c, Created::New(_))).count(), 1);
    assert_eq!(in_order(&*store).await.transfers, 1);
}

pub async fn an_arrival_at_once_makes_one_account(stage: &dyn Stage) {
    let store = stage.open().await;
    // Ada's tokens are of before and after she changed her address, which Bob has taken over meanwhile.
    let (ada, bob) = (UserId::new(), UserId::new());
    for round in 0..5 {
        let calls = (0..30).map(|i| {
            let store = Arc::clone(&store);
            let mut arrival = match i % 3 {
                0 => arrival(ada, "old@example.com", 1000),
                1 => arrival(ada, "new@example.com", 1000),
                _ => arrival(bob, "old@example.com", 500),
            };
            arrival.fresh = round > 0 && i % 2 == 0;
            async move { store.ensure_user(arrival).await.unwrap() }
        });
        at_once(calls.collect()).await;
        assert_eq!(money(&*store, ada).await, (1000, 0));
        assert_eq!(money(&*store, bob).await, (500, 0));
        assert_eq!(in_order(&*store).await.transfers, 2);
    }
    // Whoever proves it last, and nobody else, has it.
    for (id, other) in [(ada, bob), (bob, ada)] {
        let proof = Arrival {
            fresh: true,
            ..arrival(id, "old@example.com", 0)
        };
        assert_eq!(store.ensure_user(proof).await.unwrap().email, "old@example.com");
        assert_ne!(store.user(other).await.unwrap().unwrap().email, "old@example.com");
    }
}

pub async fn a_generation_begins_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for _ in 0..10 {
        let id = submit(&*store, request(user, 1)).await.id;
        let calls = (0..8).map(|i| {
            let store = Arc::clone(&store);
            async move { store.begin_attempt(begin(id, &format!("worker-{i}"))).await.unwrap() }
        });
        let results = at_once(calls.collect()).await;
        assert_eq!(results.iter().flatten().count(), 1);
        let (attempt, _) = store.newest_attempt(id).await.unwrap().unwrap();
        assert_eq!(attempt.ordinal, 1);
    }
    in_order(&*store).await;
}

pub async fn a_settlement_is_won_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for _ in 0..10 {
        let work = brought_to(&*store, user, 5, AttemptState::Accepted).await;
        let calls = (0..8).map(|i| {
            let store = Arc::clone(&store);
            let verdict = match i % 2 {
                0 => delivered(&work, 5),
                _ => failed(AttemptState::Finished),
            };
            let settle = settle(&work, verdict);
            async move { store.settle(settle).await.unwrap() }
        });
        let results = at_once(calls.collect()).await;
        assert_eq!(results.iter().filter(|r| matches!(r, Settled::Won { .. })).count(), 1);
    }
    assert_eq!(money(&*store, user).await.1, 0);
    in_order(&*store).await;
}

/// Callers that give up at any moment: every submit is there as a whole or not at all.
pub async fn an_abandoned_call_leaves_no_half_state(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1_000_000).await.id;
    let mut stored = 0;
    for i in 0..200_u64 {
        let patience = std::time::Duration::from_micros(i * 20);
        let call = tokio::time::timeout(patience, store.submit(request(user, 7)));
        if let Ok(result) = call.await {
            assert!(matches!(result.unwrap(), Submitted::New { .. }));
            stored += 1;
        }
    }
    // Whatever was under way is finished when a later write of the same kind is.
    submit(&*store, request(user, 7)).await;
    let all = GenerationFilter {
        limit: 1000,
        ..GenerationFilter::default()
    };
    let page = store.generations(user, all).await.unwrap();
    assert!(page.total > stored, "{} stored, {stored} answered", page.total);
    assert!(page.items.iter().all(|g| g.status == Status::Queued));
    assert_eq!(money(&*store, user).await, (1_000_000, 7 * page.total as i64));
    for generation in &page.items {
        assert_eq!(told(&*store, generation).await.len(), 1);
    }
    assert_eq!(in_order(&*store).await.open_holds, page.total);
}

/// The store goes away while many write: what was answered is there when it is opened again, and the books agree.
pub async fn a_dropped_store_keeps_what_it_answered(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1_000_000).await.id;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store: Arc<dyn Store> = Arc::clone(&store);
            tokio::spawn(async move {
                let mut answered = Vec::new();
                for _ in 0..20 {
                    let work = begun(&*store, user, 3).await;
                    won(&*store, settle(&work, delivered(&work, 2))).await;
                    answered.push(work.generation.id);
                    tokio::task::yield_now().await;
                }
                answered
            })
        })
        .collect();
    let (mut answered, mut aborted) = (Vec::new(), 0);
    for (i, task) in tasks.into_iter().enumerate() {
        if i % 2 == 0 {
            task.abort();
        }
        match task.await {
            Ok(ids) => answered.extend(ids),
            Err(_) => aborted += 1,
        }
    }
    assert!(
        aborted > 0 && !answered.is_empty(),
        "{aborted} aborted, {} answered",
        answered.len()
    );
    drop(store);
    let store = stage.open().await;
    for id in answered {
        let generation = store.generation(user, id).await.unwrap().unwrap();
        assert_eq!(generation.status, Status::Completed);
    }
    submit(&*store, request(user, 5)).await;
    in_order(&*store).await;
}

pub async fn a_closed_store_refuses(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.submit(request(user, 1)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    let mut stored = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(Submitted::New { .. }) => stored += 1,
            Err(StoreError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        store.submit(request(user, 1)).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(store.balance(user).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    store.close().await;
    drop(store);
    let store = stage.open().await;
    assert_eq!(money(&*store, user).await, (100, stored));
    in_order(&*store).await;
}
