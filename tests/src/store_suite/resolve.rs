//! The customer's cancel and the operator's word.

use super::Stage;
use super::fixtures::*;
use serde_json::json;
use velro::generation::{AttemptState, Generation, Status};
use velro::id::GenerationId;
use velro::ledger::Credits;
use velro::store::{Cancelled, Resolution, Resolve, Resolved, SaveStep, Saved, Settled, Store, Verdict};

pub async fn queued_and_prepared_work_is_cancelled_at_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let queued = submit(&*store, request(user, 40)).await;
    let prepared = begun(&*store, user, 30).await;
    let mut stepped = begun(&*store, user, 20).await;
    store.save_step(step(&stepped, AttemptState::Prepared)).await.unwrap();
    stepped.attempt.steps += 1;
    for id in [queued.id, prepared.generation.id, stepped.generation.id] {
        let Some(Cancelled::Now { generation, events }) = store.cancel(user, id, at(60)).await.unwrap() else {
            panic!("not cancelled")
        };
        assert_eq!(
            (generation.status, generation.captured),
            (Status::Cancelled, Some(Credits(0)))
        );
        assert_eq!((generation.completed_at, events.len()), (Some(at(60)), 1));
        assert_eq!(events[0].data, json!({"status": "cancelled"}));
        assert_eq!(store.generation(user, id).await.unwrap(), Some(*generation));
    }
    assert_eq!(money(&*store, user).await, (100, 0));
    // The worker learns from its next write that it has lost the attempt.
    for work in [&prepared, &stepped] {
        let saved = store.save_step(step(work, AttemptState::Sending)).await.unwrap();
        assert!(matches!(saved, Saved::Lost), "{saved:?}");
        let settled = store.settle(settle(work, delivered(work, 30))).await.unwrap();
        assert!(matches!(settled, Settled::Lost), "{settled:?}");
    }
    assert!(store.queued(None, 9).await.unwrap().is_empty());
    assert!(store.adopt("worker-2", at(999), at(1999), 9).await.unwrap().is_empty());
    in_order(&*store).await;
}

pub async fn what_was_sent_is_only_asked_to_stop(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    for state in [AttemptState::Sending, AttemptState::Accepted, AttemptState::Unknown] {
        let work = brought_to(&*store, user, 40, state).await;
        let id = work.generation.id;
        let cancelled = store.cancel(user, id, at(33)).await.unwrap().unwrap();
        let Cancelled::Requested { generation, attempt } = cancelled else {
            panic!("{cancelled:?}")
        };
        assert_eq!(
            (generation.status, generation.cancel_requested),
            (Status::Processing, true)
        );
        assert_eq!(attempt, work.attempt.id);
        let (stored, _) = store.newest_attempt(id).await.unwrap().unwrap();
        assert_eq!((stored.due_at, stored.state, stored.steps), (at(33), state, 1));
        if state == AttemptState::Accepted {
            let saved = store.save_step(step(&work, state)).await.unwrap();
            assert!(
                matches!(
                    saved,
                    Saved::Ok {
                        cancel_requested: true,
                        ..
                    }
                ),
                "{saved:?}"
            );
        }
    }
    assert_eq!(money(&*store, user).await, (1000, 120));
    in_order(&*store).await;
}

pub async fn a_cancel_is_idempotent_and_private(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let stranger = somebody(&*store, 0).await.id;
    let queued = submit(&*store, request(user, 40)).await;
    assert!(store.cancel(stranger, queued.id, at(60)).await.unwrap().is_none());
    assert!(store.cancel(user, GenerationId::new(), at(60)).await.unwrap().is_none());
    store.cancel(user, queued.id, at(60)).await.unwrap();
    let again = store.cancel(user, queued.id, at(61)).await.unwrap().unwrap();
    assert!(
        matches!(&again, Cancelled::Already(g) if g.status == Status::Cancelled),
        "{again:?}"
    );

    let mut work = brought_to(&*store, user, 40, AttemptState::Accepted).await;
    for _ in 0..2 {
        let asked = store.cancel(user, work.generation.id, at(62)).await.unwrap().unwrap();
        assert!(matches!(asked, Cancelled::Requested { .. }), "{asked:?}");
    }
    // The provider would not stop: the delivery is paid for, and the late cancel finds it over.
    work.generation = won(&*store, settle(&work, delivered(&work, 40))).await;
    let late = store.cancel(user, work.generation.id, at(63)).await.unwrap().unwrap();
    assert!(
        matches!(&late, Cancelled::Already(g) if g.status == Status::Completed),
        "{late:?}"
    );
    assert_eq!(money(&*store, user).await, (60, 0));
    in_order(&*store).await;
}

fn resolve(id: GenerationId, resolution: Resolution) -> Resolve {
    Resolve {
        generation_id: id,
        even_running: false,
        resolution,
        actor: "operator ada".into(),
        reason: "looked at the provider's dashboard".into(),
        now: at(70),
    }
}

async fn resolved(store: &dyn Store, resolve: Resolve) -> (Generation, String) {
    match store.resolve_unknown(resolve).await.unwrap() {
        Resolved::Done { generation, events } => {
            assert_eq!(events.len(), 1);
            (*generation, events[0].kind.as_str().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

async fn not_unknown(store: &dyn Store, id: GenerationId, expected: Option<AttemptState>) {
    let refused = store.resolve_unknown(resolve(id, Resolution::Refund)).await.unwrap();
    assert!(
        matches!(&refused, Resolved::NotUnknown(state) if *state == expected),
        "{refused:?}"
    );
}

pub async fn an_unknown_attempt_can_be_refunded(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Unknown).await;
    let id = work.generation.id;
    let (generation, event) = resolved(&*store, resolve(id, Resolution::Refund)).await;
    assert_eq!(
        (generation.status, generation.captured, event.as_str()),
        (Status::Failed, Some(Credits(0)), "error")
    );
    let error = generation.error.unwrap();
    assert!(
        !error.code.is_empty() && !error.message.contains("dashboard"),
        "{error:?}"
    );
    assert_eq!(money(&*store, user).await, (100, 0));
    not_unknown(&*store, id, Some(AttemptState::Finished)).await;
    in_order(&*store).await;
}

pub async fn an_unknown_attempt_can_be_tried_again(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Unknown).await;
    let id = work.generation.id;
    let (generation, event) = resolved(&*store, resolve(id, Resolution::Retry)).await;
    assert_eq!(
        (generation.status, generation.captured, event.as_str()),
        (Status::Queued, None, "queued")
    );
    assert_eq!(money(&*store, user).await, (100, 40));
    not_unknown(&*store, id, Some(AttemptState::Rejected)).await;
    assert_eq!(store.queued(None, 9).await.unwrap()[0].id, id);
    let (again, _) = store.begin_attempt(begin(id, WORKER)).await.unwrap().unwrap();
    assert_eq!((again.attempt.ordinal, again.generation.started_at), (2, Some(at(20))));
    won(&*store, settle(&again, delivered(&again, 40))).await;
    assert_eq!(money(&*store, user).await, (60, 0));
    in_order(&*store).await;
}

pub async fn a_retry_of_what_should_stop_is_a_cancel(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Unknown).await;
    let id = work.generation.id;
    store.cancel(user, id, at(60)).await.unwrap();
    let (generation, event) = resolved(&*store, resolve(id, Resolution::Retry)).await;
    assert_eq!((generation.status, event.as_str()), (Status::Cancelled, "cancelled"));
    assert_eq!(money(&*store, user).await, (100, 0));
    in_order(&*store).await;
}

pub async fn an_unknown_attempt_can_be_delivered(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Unknown).await;
    let id = work.generation.id;
    let files = vec![output(id, 0), output(id, 1)];
    let (generation, event) = resolved(&*store, resolve(id, Resolution::Deliver(files.clone()))).await;
    assert_eq!(
        (generation.status, generation.captured),
        (Status::Completed, Some(Credits(40)))
    );
    assert_eq!((generation.outputs, event.as_str()), (files, "completed"));
    assert_eq!(money(&*store, user).await, (60, 0));
    not_unknown(&*store, id, Some(AttemptState::Finished)).await;
    in_order(&*store).await;
}

pub async fn only_unknown_attempts_are_resolved(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let missing = store
        .resolve_unknown(resolve(GenerationId::new(), Resolution::Retry))
        .await
        .unwrap();
    assert!(matches!(missing, Resolved::Missing), "{missing:?}");
    not_unknown(&*store, submit(&*store, request(user, 5)).await.id, None).await;
    for state in [AttemptState::Prepared, AttemptState::Sending, AttemptState::Accepted] {
        let work = brought_to(&*store, user, 5, state).await;
        not_unknown(&*store, work.generation.id, Some(state)).await;
    }
    // A webhook that came first wins: the operator's word finds the attempt known.
    let mut work = brought_to(&*store, user, 5, AttemptState::Unknown).await;
    store
        .deliver_webhook("sandbox", work.attempt.id, b"done".to_vec(), at(60))
        .await
        .unwrap();
    store.adopt(WORKER, at(61), at(161), 9).await.unwrap();
    let known = SaveStep {
        clear_inbox: true,
        ..step(&work, AttemptState::Accepted)
    };
    store.save_step(known).await.unwrap();
    work.attempt.steps += 1;
    not_unknown(&*store, work.generation.id, Some(AttemptState::Accepted)).await;
    won(&*store, settle(&work, Verdict::Cancelled)).await;
    in_order(&*store).await;
}
