//! How the worker ends generations, and where the money goes.

use super::Stage;
use super::fixtures::*;
use serde_json::json;
use velro::generation::{AttemptState, EventKind, Status};
use velro::id::AttemptId;
use velro::ledger::{Credits, Settlement};
use velro::store::{ProgressNote, Saved, Settle, Settled, Store, Verdict};

pub async fn a_full_delivery_is_captured_in_full(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Accepted).await;
    let Settled::Won {
        generation,
        settlement,
        events,
    } = store.settle(settle(&work, delivered(&work, 40))).await.unwrap()
    else {
        panic!("lost")
    };
    let expected = Settlement {
        captured: Credits(40),
        released: Credits(0),
    };
    assert_eq!(settlement, expected);
    assert_eq!(
        (generation.status, generation.captured),
        (Status::Completed, Some(Credits(40)))
    );
    assert_eq!(
        (generation.completed_at, generation.updated_at, generation.error.clone()),
        (Some(at(50)), at(50), None)
    );
    assert_eq!(generation.outputs, [output(generation.id, 0)]);
    assert_eq!((events.len(), events[0].kind), (1, EventKind::Completed));
    assert_eq!(store.generation(user, generation.id).await.unwrap(), Some(*generation));
    assert_eq!(money(&*store, user).await, (60, 0));
    assert_eq!(amounts(&*store, user).await, [("bonus", 100, 100), ("usage", -40, 60)]);
    let (attempt, _) = store.newest_attempt(work.generation.id).await.unwrap().unwrap();
    assert_eq!(attempt.state, AttemptState::Finished);
    let report = in_order(&*store).await;
    assert_eq!((report.open_holds, report.held, report.transfers), (0, Credits(0), 2));
}

pub async fn a_partial_delivery_releases_the_rest(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 40).await;
    let generation = won(&*store, settle(&work, delivered(&work, 30))).await;
    assert_eq!(generation.captured, Some(Credits(30)));
    assert_eq!(money(&*store, user).await, (70, 0));
    let expected = [("bonus", 100, 100), ("usage", -40, 60), ("refund", 10, 70)];
    assert_eq!(amounts(&*store, user).await, expected);
    let refund = lines(&*store, user).await.remove(2);
    assert_eq!(refund.generation_id, Some(generation.id));
    assert!(refund.description.contains(MODEL), "{}", refund.description);
    in_order(&*store).await;
}

pub async fn never_more_than_the_hold_is_captured(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for (worth, captured) in [(1_000_000, 40), (0, 0), (-7, 0)] {
        let work = begun(&*store, user, 40).await;
        let generation = won(&*store, settle(&work, delivered(&work, worth))).await;
        assert_eq!(generation.captured, Some(Credits(captured)));
        assert_eq!(generation.status, Status::Completed);
    }
    assert_eq!(money(&*store, user).await, (60, 0));
    in_order(&*store).await;
}

pub async fn a_failure_gives_everything_back(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for (asked, stored) in [
        (AttemptState::Finished, AttemptState::Finished),
        (AttemptState::Rejected, AttemptState::Rejected),
        // A verdict cannot leave an attempt alive.
        (AttemptState::Accepted, AttemptState::Finished),
    ] {
        let work = brought_to(&*store, user, 40, AttemptState::Sending).await;
        let generation = won(&*store, settle(&work, failed(asked))).await;
        assert_eq!(
            (generation.status, generation.captured),
            (Status::Failed, Some(Credits(0)))
        );
        let error = generation.error.clone().unwrap();
        assert_eq!(error.code, "provider_failed");
        let data = json!({"status": "failed", "error": error.message, "code": error.code});
        assert_eq!(told(&*store, &generation).await.pop().unwrap(), ("error", data));
        let (attempt, _) = store.newest_attempt(generation.id).await.unwrap().unwrap();
        assert_eq!(attempt.state, stored);
    }
    assert_eq!(money(&*store, user).await, (100, 0));
    assert_eq!(
        amounts(&*store, user).await[1..3],
        [("usage", -40, 60), ("refund", 40, 100)]
    );
    assert_eq!(in_order(&*store).await.transfers, 1);
}

/// A NUL cannot be stored everywhere. Clients are refused; a provider's must not keep a generation from ending.
pub async fn a_nul_of_a_provider_stops_nothing(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Sending).await;
    let mut accepted = step(&work, AttemptState::Accepted);
    accepted.remote_id = Some("job\0 1".into());
    accepted.progress = Some(ProgressNote {
        message: Some("half\0 way, \\u0000".into()),
        ..ProgressNote::default()
    });
    let saved = store.save_step(accepted).await.unwrap();
    assert!(matches!(saved, Saved::Ok { .. }), "{saved:?}");
    let mut settle = settle(&work, failed(AttemptState::Finished));
    settle.steps += 1;
    if let Verdict::Failed { error, detail, .. } = &mut settle.verdict {
        error.message = "no\0 picture".into();
        *detail = "HTTP \0".into();
    }
    won(&*store, settle).await;
    let (attempt, generation) = store.newest_attempt(work.generation.id).await.unwrap().unwrap();
    assert_eq!(attempt.remote_id.as_deref(), Some("job\u{fffd} 1"));
    assert_eq!(generation.error.as_ref().unwrap().message, "no\u{fffd} picture");
    let events = told(&*store, &generation).await;
    assert!(
        events.iter().any(|e| e.1["message"] == "half\u{fffd} way, \\u0000"),
        "{events:?}"
    );
    assert_eq!(money(&*store, user).await, (100, 0));
    in_order(&*store).await;
}

pub async fn a_cancelled_attempt_gives_everything_back(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 40, AttemptState::Accepted).await;
    let generation = won(&*store, settle(&work, Verdict::Cancelled)).await;
    assert_eq!(
        (generation.status, generation.captured),
        (Status::Cancelled, Some(Credits(0)))
    );
    assert_eq!(
        told(&*store, &generation).await.pop().unwrap(),
        ("cancelled", json!({"status": "cancelled"}))
    );
    assert_eq!(money(&*store, user).await, (100, 0));
    in_order(&*store).await;
}

async fn loses(store: &dyn Store, settle: Settle) {
    let settled = store.settle(settle).await.unwrap();
    assert!(matches!(settled, Settled::Lost), "{settled:?}");
}

pub async fn only_the_holder_of_the_lease_settles(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 40).await;
    let other = begun(&*store, user, 40).await;
    let right = settle(&work, delivered(&work, 40));
    let stranger = Settle {
        worker: "worker-2".into(),
        ..right.clone()
    };
    let ahead = Settle {
        steps: 1,
        ..right.clone()
    };
    let missing = Settle {
        attempt_id: AttemptId::new(),
        ..right.clone()
    };
    let crossed = Settle {
        attempt_id: other.attempt.id,
        ..right.clone()
    };
    for wrong in [stranger, ahead, missing, crossed] {
        loses(&*store, wrong).await;
    }
    assert_eq!(money(&*store, user).await, (100, 80));
    won(&*store, right).await;
    assert_eq!(money(&*store, user).await, (60, 40));
    in_order(&*store).await;
}

pub async fn what_is_over_stays_over(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 40).await;
    let done = won(&*store, settle(&work, delivered(&work, 40))).await;
    loses(&*store, settle(&work, failed(AttemptState::Finished))).await;
    loses(&*store, settle(&work, Verdict::Cancelled)).await;
    assert!(store.begin_attempt(begin(done.id, WORKER)).await.unwrap().is_none());
    assert_eq!(store.generation(user, done.id).await.unwrap(), Some(done));
    assert_eq!(money(&*store, user).await, (60, 0));
    in_order(&*store).await;
}
