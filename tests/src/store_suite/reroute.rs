//! From one provider to the next.

use super::Stage;
use super::fixtures::*;
use serde_json::json;
use velro::generation::{AttemptState, Generation, Route, Status};
use velro::id::{AttemptId, UserId};
use velro::store::{
    BeginAttempt, Cancelled, Delivered, NewGeneration, Reroute, Rerouted, SaveStep, Saved, Settled, Store, Work,
};

fn route(provider: &str) -> Route {
    Route {
        provider: provider.into(),
        provider_model: format!("{provider}/painter"),
        provider_input: r#"{"text":"a \"nice\" cat é","size":1.50}"#.into(),
    }
}

/// A request that may go to two more providers.
fn routed(user: UserId, price: i64) -> NewGeneration {
    NewGeneration {
        fallbacks: vec![route("second"), route("third")],
        ..request(user, price)
    }
}

/// Such a generation whose first attempt has got to `state`.
async fn at_first(store: &dyn Store, user: UserId, state: AttemptState) -> Work {
    let generation = submit(store, routed(user, 40)).await;
    begin_to(store, &generation, state).await
}

async fn begin_to(store: &dyn Store, generation: &Generation, state: AttemptState) -> Work {
    let begun = store.begin_attempt(begin(generation.id, WORKER)).await.unwrap();
    let (mut work, _) = begun.unwrap();
    if state != AttemptState::Prepared {
        let saved = store.save_step(step(&work, state)).await.unwrap();
        assert!(matches!(saved, Saved::Ok { .. }), "{saved:?}");
        work.attempt.steps += 1;
        work.attempt.state = state;
    }
    work
}

fn leave(work: &Work, state: AttemptState) -> Reroute {
    Reroute {
        generation_id: work.generation.id,
        attempt_id: work.attempt.id,
        worker: WORKER.into(),
        steps: work.attempt.steps,
        attempt_state: state,
        reason: "503 from the provider".into(),
        fallback: 0,
        now: at(45),
    }
}

async fn queued(store: &dyn Store, reroute: Reroute) -> Generation {
    match store.reroute(reroute).await.unwrap() {
        Rerouted::Queued { generation, events } => {
            let told: Vec<_> = events.iter().map(|e| (e.kind.as_str(), e.data.clone())).collect();
            let data = json!({"status": "queued", "provider": generation.provider});
            assert_eq!(told, [("queued", data)]);
            *generation
        }
        other => panic!("{other:?}"),
    }
}

async fn lost(store: &dyn Store, reroute: Reroute) -> bool {
    matches!(store.reroute(reroute).await.unwrap(), Rerouted::Lost)
}

pub async fn a_refused_generation_goes_from_provider_to_provider(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let asked = submit(&*store, routed(user, 40)).await;
    assert_eq!(asked.fallbacks, [route("second"), route("third")]);
    let read = store.generation(user, asked.id).await.unwrap().unwrap();
    assert_eq!(read.fallbacks, asked.fallbacks, "what is stored comes back");
    let first = begin_to(&*store, &asked, AttemptState::Sending).await;
    let again = queued(&*store, leave(&first, AttemptState::Rejected)).await;
    assert_eq!(again, store.generation(user, asked.id).await.unwrap().unwrap());
    assert_eq!(
        (
            again.status,
            again.started_at,
            again.updated_at,
            again.progress_permille
        ),
        (Status::Queued, Some(at(20)), at(45), None)
    );
    let to = route("second");
    assert_eq!(
        (&again.provider, &again.provider_model, &again.provider_input),
        (&to.provider, &to.provider_model, &to.provider_input)
    );
    assert_eq!(again.fallbacks, [route("third")]);
    assert_eq!(money(&*store, user).await, (100, 40), "the hold is untouched");
    assert_eq!(amounts(&*store, user).await.len(), 2, "and so is the statement");
    assert!(store.work(first.attempt.id, WORKER).await.unwrap().is_none());
    assert_eq!(store.held(WORKER).await.unwrap(), []);
    assert!(store.adopt("worker-2", at(5000), at(6000), 9).await.unwrap().is_empty());
    let waiting = store.queued(None, 9).await.unwrap();
    assert_eq!(
        waiting.iter().map(|g| (g.id, g.provider.as_str())).collect::<Vec<_>>(),
        [(asked.id, "second")]
    );

    let second = begin_to(&*store, &asked, AttemptState::Prepared).await;
    assert_eq!(
        (
            second.attempt.ordinal,
            second.attempt.provider.as_str(),
            second.attempt.steps
        ),
        (2, "second", 0)
    );
    let again = queued(&*store, leave(&second, AttemptState::Rejected)).await;
    assert_eq!((again.provider.as_str(), again.fallbacks.len()), ("third", 0));
    let third = begin_to(&*store, &asked, AttemptState::Accepted).await;
    assert_eq!((third.attempt.ordinal, third.attempt.provider.as_str()), (3, "third"));
    assert!(
        lost(&*store, leave(&third, AttemptState::Finished)).await,
        "there is no other"
    );
    won(&*store, settle(&third, delivered(&third, 40))).await;
    assert_eq!(money(&*store, user).await, (60, 0), "charged once");
    let kinds: Vec<_> = told(&*store, &asked).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [
            "queued",
            "processing",
            "queued",
            "processing",
            "queued",
            "processing",
            "completed"
        ]
    );
    in_order(&*store).await;
}

pub async fn a_job_that_failed_goes_to_the_next_provider(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = at_first(&*store, user, AttemptState::Accepted).await;
    let last = Reroute {
        fallback: 1,
        ..leave(&work, AttemptState::Finished)
    };
    let again = queued(&*store, last).await;
    assert_eq!(again.provider, "third");
    assert_eq!(again.fallbacks, [route("second")], "what was passed over stays");
    let (attempt, _) = store.newest_attempt(again.id).await.unwrap().unwrap();
    assert_eq!(attempt.state, AttemptState::Finished);
    let late = store
        .deliver_webhook("sandbox", work.attempt.id, b"late".to_vec(), at(60))
        .await;
    assert_eq!(late.unwrap(), Delivered::Over);
    let next = begin_to(&*store, &again, AttemptState::Accepted).await;
    won(&*store, settle(&next, failed(AttemptState::Finished))).await;
    assert_eq!(money(&*store, user).await, (100, 0));
    in_order(&*store).await;
}

pub async fn what_may_have_been_bought_goes_nowhere(stage: &dyn Stage) {
    use AttemptState::{Accepted, Finished, Prepared, Rejected, Sending, Unknown};
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    for (state, ends) in [
        (Prepared, vec![Prepared, Sending, Accepted, Unknown, Finished]),
        (Sending, vec![Prepared, Sending, Accepted, Unknown, Finished]),
        (Accepted, vec![Prepared, Sending, Accepted, Unknown, Rejected]),
    ] {
        let work = at_first(&*store, user, state).await;
        for end in ends {
            assert!(lost(&*store, leave(&work, end)).await, "{state:?} to {end:?}");
        }
        let read = store.work(work.attempt.id, WORKER).await.unwrap().unwrap();
        assert_eq!(
            (read.attempt.state, read.generation.provider.as_str()),
            (state, "sandbox")
        );
        assert_eq!(read.generation.fallbacks.len(), 2);
    }
    // Unknown and under a lease again, because a webhook came.
    let mut work = at_first(&*store, user, Sending).await;
    let parked = SaveStep {
        state: Unknown,
        ..step(&work, Unknown)
    };
    store.save_step(parked).await.unwrap();
    work.attempt.steps += 1;
    let id = work.attempt.id;
    store
        .deliver_webhook("sandbox", id, b"?".to_vec(), at(40))
        .await
        .unwrap();
    let adopted = store.adopt(WORKER, at(41), at(200), 9).await.unwrap();
    assert!(adopted.iter().any(|a| a.attempt_id == id));
    for end in [Rejected, Finished] {
        assert!(lost(&*store, leave(&work, end)).await, "{end:?}");
    }
    assert_eq!(money(&*store, user).await, (1000, 160));
    in_order(&*store).await;
}

pub async fn only_the_holder_of_the_lease_reroutes_and_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let work = at_first(&*store, user, AttemptState::Sending).await;
    let other = at_first(&*store, user, AttemptState::Sending).await;
    let right = leave(&work, AttemptState::Rejected);
    let wrong = [
        Reroute {
            worker: "worker-2".into(),
            ..right.clone()
        },
        Reroute {
            steps: 0,
            ..right.clone()
        },
        Reroute {
            attempt_id: AttemptId::new(),
            ..right.clone()
        },
        Reroute {
            attempt_id: other.attempt.id,
            ..right.clone()
        },
        Reroute {
            fallback: 2,
            ..right.clone()
        },
    ];
    for wrong in wrong {
        assert!(lost(&*store, wrong).await);
    }
    queued(&*store, right.clone()).await;
    assert!(lost(&*store, right.clone()).await, "twice");
    let begun = begin_to(&*store, &work.generation, AttemptState::Sending).await;
    assert!(lost(&*store, right).await, "the attempt before");
    assert!(matches!(
        store.settle(settle(&work, delivered(&work, 40))).await.unwrap(),
        Settled::Lost
    ));
    won(&*store, settle(&begun, failed(AttemptState::Rejected))).await;
    in_order(&*store).await;
}

pub async fn a_cancel_ends_what_waits_for_the_next_provider(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = at_first(&*store, user, AttemptState::Accepted).await;
    let again = queued(&*store, leave(&work, AttemptState::Finished)).await;
    match store.cancel(user, again.id, at(50)).await.unwrap() {
        Some(Cancelled::Now { generation, .. }) => assert_eq!(generation.status, Status::Cancelled),
        other => panic!("{other:?}"),
    }
    let begun: BeginAttempt = begin(again.id, WORKER);
    assert!(store.begin_attempt(begun).await.unwrap().is_none());
    assert_eq!(money(&*store, user).await, (100, 0));
    in_order(&*store).await;
}

pub async fn what_should_stop_goes_to_no_other_provider(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 200).await.id;
    for (state, end) in [
        (AttemptState::Sending, AttemptState::Rejected),
        (AttemptState::Accepted, AttemptState::Finished),
    ] {
        let work = at_first(&*store, user, state).await;
        let id = work.generation.id;
        let asked = store.cancel(user, id, at(40)).await.unwrap();
        assert!(matches!(asked, Some(Cancelled::Requested { .. })), "{asked:?}");
        match store.reroute(leave(&work, end)).await.unwrap() {
            Rerouted::Cancelled {
                generation,
                settlement,
                events,
            } => {
                assert_eq!((generation.status, settlement.released.0), (Status::Cancelled, 40));
                assert_eq!(events.len(), 1);
            }
            other => panic!("{other:?}"),
        }
        let (attempt, generation) = store.newest_attempt(id).await.unwrap().unwrap();
        assert_eq!((attempt.state, generation.provider.as_str()), (end, "sandbox"));
    }
    assert_eq!(money(&*store, user).await, (200, 0));
    in_order(&*store).await;
}

pub async fn reroute_cancel_and_settle_have_one_winner(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 10_000).await.id;
    for _ in 0..20 {
        let work = at_first(&*store, user, AttemptState::Sending).await;
        let id = work.generation.id;
        let (moved, moved_too, ended, cancelled) = tokio::join!(
            store.reroute(leave(&work, AttemptState::Rejected)),
            store.reroute(leave(&work, AttemptState::Rejected)),
            store.settle(settle(&work, failed(AttemptState::Rejected))),
            store.cancel(user, id, at(50)),
        );
        let cancelled = cancelled.unwrap().unwrap();
        let moves = [moved.unwrap(), moved_too.unwrap()];
        let wins = moves.iter().filter(|m| !matches!(m, Rerouted::Lost)).count()
            + usize::from(matches!(ended.unwrap(), Settled::Won { .. }));
        assert_eq!(wins, 1, "{moves:?} {cancelled:?}");
        let now = store.generation(user, id).await.unwrap().unwrap();
        match cancelled {
            Cancelled::Now { .. } => assert_eq!(now.status, Status::Cancelled),
            // Asked before the attempt left: then it ended, and did not go on.
            Cancelled::Requested { .. } => assert!(now.status.is_terminal(), "{now:?}"),
            Cancelled::Already(_) => assert_eq!(now.status, Status::Failed),
        }
    }
    assert_eq!(money(&*store, user).await, (10_000, 0));
    in_order(&*store).await;
}
