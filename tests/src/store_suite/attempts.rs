//! Attempts as the worker sees them.

use super::Stage;
use super::fixtures::*;
use velro::generation::{AttemptState, EventKind, Pending, Status};
use velro::id::{AttemptId, GenerationId};
use velro::store::{Delivered, NextAttempt, Redate, SaveStep, Saved, Settled, Store};

async fn adopted(store: &dyn Store, worker: &str, now: i64) -> Vec<AttemptId> {
    let adopted = store.adopt(worker, at(now), at(now + 100), 50).await.unwrap();
    let mut ids: Vec<AttemptId> = adopted.iter().map(|a| a.attempt_id).collect();
    ids.sort();
    ids
}

async fn lost(store: &dyn Store, step: SaveStep) -> bool {
    matches!(store.save_step(step).await.unwrap(), Saved::Lost)
}

pub async fn an_attempt_begins_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let queued = submit(&*store, request(user, 10)).await;
    let first = begin(queued.id, WORKER);
    let (work, events) = store.begin_attempt(first.clone()).await.unwrap().unwrap();
    assert_eq!(
        (work.attempt.id, work.attempt.generation_id),
        (first.attempt_id, queued.id)
    );
    assert_eq!(
        (work.attempt.ordinal, work.attempt.steps, work.attempt.state),
        (1, 0, AttemptState::Prepared)
    );
    assert_eq!((work.attempt.due_at, work.attempt.deadline_at), (at(20), at(1000)));
    assert_eq!((work.attempt.provider.as_str(), work.attempt.inbox), ("sandbox", None));
    assert!(matches!(work.attempt.pending, Pending::Start) && work.attempt.plugin_state.is_empty());
    assert_eq!(
        (work.generation.status, work.generation.started_at),
        (Status::Processing, Some(at(20)))
    );
    assert_eq!((events.len(), events[0].kind), (1, EventKind::Processing));
    assert!(
        store
            .begin_attempt(begin(queued.id, "worker-2"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        store
            .begin_attempt(begin(GenerationId::new(), WORKER))
            .await
            .unwrap()
            .is_none()
    );
    let read = store.work(first.attempt_id, WORKER).await.unwrap().unwrap();
    assert_eq!((read.attempt.id, read.generation), (first.attempt_id, work.generation));
    assert!(store.work(first.attempt_id, "worker-2").await.unwrap().is_none());
    assert!(store.work(AttemptId::new(), WORKER).await.unwrap().is_none());
    assert_eq!(store.held(WORKER).await.unwrap(), [first.attempt_id]);
    assert_eq!(store.held("worker-2").await.unwrap(), []);
    assert_eq!(told(&*store, &queued).await.len(), 2);
    in_order(&*store).await;
}

pub async fn steps_are_guarded_by_lease_and_count(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 10).await;
    let right = step(&work, AttemptState::Sending);
    let stranger = SaveStep {
        worker: "worker-2".into(),
        ..right.clone()
    };
    let ahead = SaveStep {
        steps: 1,
        ..right.clone()
    };
    let missing = SaveStep {
        attempt_id: AttemptId::new(),
        ..right.clone()
    };
    for wrong in [stranger, ahead, missing] {
        assert!(lost(&*store, wrong).await);
    }
    assert!(!lost(&*store, right.clone()).await);
    assert!(lost(&*store, right).await, "the same step twice");
    let read = store.work(work.attempt.id, WORKER).await.unwrap().unwrap();
    assert_eq!((read.attempt.steps, read.attempt.state), (1, AttemptState::Sending));
    won(&*store, settle(&read, failed(AttemptState::Finished))).await;
    assert!(
        lost(&*store, step(&read, AttemptState::Accepted)).await,
        "a step of what is over"
    );
    assert!(store.work(work.attempt.id, WORKER).await.unwrap().is_none());
    in_order(&*store).await;
}

/// What has sent nothing counts as begun anew, for whoever holds it, and as often as it is said: the same attempt, to the step.
/// What has sent something does not: its provider has its deadline.
pub async fn an_unsent_attempt_gets_its_time_anew(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 10).await;
    let right = Redate {
        attempt_id: work.attempt.id,
        worker: WORKER.into(),
        steps: 0,
        deadline_at: at(2000),
        now: at(1000),
    };
    let stranger = Redate {
        worker: "worker-2".into(),
        ..right.clone()
    };
    let ahead = Redate {
        steps: 1,
        ..right.clone()
    };
    for wrong in [stranger, ahead] {
        assert!(!store.redate_attempt(wrong).await.unwrap());
    }
    let before = store.work(work.attempt.id, WORKER).await.unwrap().unwrap().attempt;
    assert_eq!(before.created_at, work.attempt.created_at);
    for _ in 0..2 {
        assert!(store.redate_attempt(right.clone()).await.unwrap());
    }
    let after = store.work(work.attempt.id, WORKER).await.unwrap().unwrap().attempt;
    assert_eq!((after.created_at, after.deadline_at), (at(1000), at(2000)));
    assert_eq!(
        (after.id, after.ordinal, after.steps, after.state),
        (before.id, before.ordinal, before.steps, AttemptState::Prepared)
    );
    assert!(!lost(&*store, step(&work, AttemptState::Sending)).await);
    let sent = Redate { steps: 1, ..right };
    assert!(!store.redate_attempt(sent).await.unwrap(), "it has sent something");
    in_order(&*store).await;
}

pub async fn a_step_stores_what_it_says(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = begun(&*store, user, 10).await;
    let id = work.attempt.id;
    let bytes: Vec<u8> = (0..=255).collect();
    let full = SaveStep {
        plugin_state: Some(bytes.clone()),
        remote_id: Some("remote 'x'".into()),
        pending: Pending::Submit,
        ..step(&work, AttemptState::Sending)
    };
    let saved = store.save_step(full).await.unwrap();
    let Saved::Ok {
        cancel_requested,
        events,
    } = saved
    else {
        panic!("lost")
    };
    assert!(!cancel_requested && events.is_empty());
    let read = store.work(id, WORKER).await.unwrap().unwrap();
    assert_eq!(
        (&read.attempt.plugin_state, read.attempt.remote_id.as_deref()),
        (&bytes, Some("remote 'x'"))
    );
    assert!(matches!(read.attempt.pending, Pending::Submit));
    assert_eq!(read.attempt.due_at, at(40));

    store
        .deliver_webhook("sandbox", id, b"news".to_vec(), at(31))
        .await
        .unwrap();
    let sparse = step(&read, AttemptState::Accepted);
    assert!(!lost(&*store, sparse).await);
    let read = store.work(id, WORKER).await.unwrap().unwrap();
    assert_eq!(
        (&read.attempt.plugin_state, read.attempt.remote_id.as_deref()),
        (&bytes, Some("remote 'x'"))
    );
    assert_eq!(
        (read.attempt.inbox.as_deref(), read.attempt.steps),
        (Some(&b"news"[..]), 2)
    );
    let emptied = SaveStep {
        plugin_state: Some(Vec::new()),
        clear_inbox: true,
        ..step(&read, AttemptState::Accepted)
    };
    assert!(!lost(&*store, emptied).await);
    let read = store.work(id, WORKER).await.unwrap().unwrap();
    assert_eq!((read.attempt.plugin_state.len(), read.attempt.inbox), (0, None));
    in_order(&*store).await;
}

pub async fn leases_run_out_and_are_taken_over(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    assert!(adopted(&*store, "worker-2", 99).await.is_empty());
    let taken = store.adopt("worker-2", at(100), at(200), 50).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(
        (taken[0].attempt_id, taken[0].generation_id),
        (work.attempt.id, work.generation.id)
    );
    assert_eq!(
        (taken[0].user_id, taken[0].provider.as_str(), taken[0].due_at),
        (user, "sandbox", at(40))
    );
    assert!(lost(&*store, step(&work, AttemptState::Accepted)).await);
    assert!(matches!(
        store.settle(settle(&work, delivered(&work, 10))).await.unwrap(),
        Settled::Lost
    ));
    assert!(adopted(&*store, WORKER, 150).await.is_empty());
    let read = store.work(work.attempt.id, "worker-2").await.unwrap().unwrap();
    assert_eq!((read.attempt.steps, read.attempt.state), (1, AttemptState::Accepted));
    assert_eq!(adopted(&*store, WORKER, 200).await, [work.attempt.id]);
    won(&*store, settle(&work, delivered(&work, 10))).await;
    assert!(adopted(&*store, WORKER, 999).await.is_empty());
    in_order(&*store).await;
}

pub async fn released_leases_are_free_at_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begun(&*store, user, 5).await.attempt.id);
    }
    let stepped = [ids[0]];
    assert_eq!(store.release_leases(WORKER, &stepped).await.unwrap(), 2);
    assert_eq!(store.held(WORKER).await.unwrap(), stepped);
    assert_eq!(store.release_leases(WORKER, &[]).await.unwrap(), 1);
    assert_eq!(store.release_leases(WORKER, &[]).await.unwrap(), 0);
    assert!(store.work(ids[0], WORKER).await.unwrap().is_none());
    let two = store.adopt("worker-2", at(21), at(121), 2).await.unwrap();
    assert_eq!(two.len(), 2);
    let third = adopted(&*store, "worker-3", 21).await;
    assert_eq!(third.len(), 1);
    let mut all: Vec<AttemptId> = two.iter().map(|a| a.attempt_id).chain(third).collect();
    all.sort();
    assert_eq!(all, ids);
    in_order(&*store).await;
}

pub async fn a_heartbeat_keeps_every_attempt(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for _ in 0..3 {
        begun(&*store, user, 5).await;
    }
    assert_eq!(store.extend_leases(WORKER, at(300)).await.unwrap(), 3);
    assert_eq!(store.extend_leases("worker-2", at(300)).await.unwrap(), 0);
    assert!(adopted(&*store, "worker-2", 299).await.is_empty());
    assert_eq!(adopted(&*store, "worker-2", 300).await.len(), 3);
    assert_eq!(store.extend_leases(WORKER, at(900)).await.unwrap(), 0);
    in_order(&*store).await;
}

pub async fn living_workers_are_those_with_a_lease(stage: &dyn Stage) {
    let store = stage.open().await;
    assert_eq!(store.living_workers(at(0)).await.unwrap(), 0);
    let user = somebody(&*store, 100).await.id;
    begun(&*store, user, 5).await;
    begun(&*store, user, 5).await;
    store.extend_leases(WORKER, at(300)).await.unwrap();
    assert_eq!(store.living_workers(at(299)).await.unwrap(), 1);
    assert_eq!(store.living_workers(at(300)).await.unwrap(), 0, "it has run out");
    assert_eq!(store.adopt("worker-2", at(300), at(400), 1).await.unwrap().len(), 1);
    store.extend_leases(WORKER, at(400)).await.unwrap();
    assert_eq!(store.living_workers(at(399)).await.unwrap(), 2);
    store.release_leases("worker-2", &[]).await.unwrap();
    assert_eq!(store.living_workers(at(399)).await.unwrap(), 1, "it has left");
    in_order(&*store).await;
}

pub async fn unknown_attempts_wait_for_their_inbox(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let mut work = brought_to(&*store, user, 10, AttemptState::Unknown).await;
    let id = work.attempt.id;
    // The hold stays, and nobody goes on by itself, however long it takes.
    assert_eq!(money(&*store, user).await, (100, 10));
    let shown = store.generation(user, work.generation.id).await.unwrap().unwrap();
    assert_eq!(shown.status, Status::Processing);
    assert!(adopted(&*store, "worker-2", 100_000).await.is_empty());
    assert_eq!(
        store
            .deliver_webhook("sandbox", id, b"it is done".to_vec(), at(90))
            .await
            .unwrap(),
        Delivered::Stored
    );
    // Its lease was given back when it became unknown: any worker may take the news up at once.
    let taken = store.adopt(WORKER, at(91), at(191), 50).await.unwrap();
    assert_eq!(
        taken.iter().map(|a| (a.attempt_id, a.due_at)).collect::<Vec<_>>(),
        [(id, at(90))]
    );
    let read = store.work(id, WORKER).await.unwrap().unwrap();
    assert_eq!(read.attempt.inbox.as_deref(), Some(&b"it is done"[..]));
    let accepted = SaveStep {
        clear_inbox: true,
        ..step(&read, AttemptState::Accepted)
    };
    assert!(!lost(&*store, accepted).await);
    work.attempt.steps = read.attempt.steps + 1;
    won(&*store, settle(&work, delivered(&work, 10))).await;
    assert_eq!(money(&*store, user).await, (90, 0));
    in_order(&*store).await;
}

pub async fn the_next_attempt_replaces_a_rejected_one(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 10, AttemptState::Sending).await;
    let next = NextAttempt {
        rejected: work.attempt.id,
        worker: WORKER.into(),
        steps: 1,
        reason: "503 from the provider".into(),
        attempt_id: AttemptId::new(),
        due_at: at(45),
        deadline_at: at(2000),
        now: at(41),
    };
    let stranger = NextAttempt {
        worker: "worker-2".into(),
        ..next.clone()
    };
    let behind = NextAttempt {
        steps: 0,
        ..next.clone()
    };
    for wrong in [stranger, behind] {
        assert!(store.next_attempt(wrong).await.unwrap().is_none());
    }
    let second = store.next_attempt(next.clone()).await.unwrap().unwrap();
    assert_eq!(
        (second.attempt.id, second.attempt.ordinal, second.attempt.steps),
        (next.attempt_id, 2, 0)
    );
    assert_eq!(
        (second.attempt.state, second.attempt.due_at),
        (AttemptState::Prepared, at(45))
    );
    assert_eq!(
        (second.attempt.deadline_at, second.generation.status),
        (at(2000), Status::Processing)
    );
    assert!(store.next_attempt(next).await.unwrap().is_none());
    assert!(store.work(work.attempt.id, WORKER).await.unwrap().is_none());
    assert!(matches!(
        store.settle(settle(&work, delivered(&work, 10))).await.unwrap(),
        Settled::Lost
    ));
    let (newest, _) = store.newest_attempt(work.generation.id).await.unwrap().unwrap();
    assert_eq!(newest.id, second.attempt.id);
    let old = store.attempts_in(AttemptState::Rejected, 9).await.unwrap();
    assert_eq!(old.iter().map(|(a, _)| a.id).collect::<Vec<_>>(), [work.attempt.id]);
    assert_eq!(money(&*store, user).await, (100, 10));
    won(&*store, settle(&second, delivered(&second, 10))).await;
    in_order(&*store).await;
}

pub async fn webhooks_wake_and_are_kept_until_stepped(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let deliver = async |id, provider: &str, body: &str, now| {
        store.deliver_webhook(provider, id, body.into(), at(now)).await.unwrap()
    };
    let work = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    let id = work.attempt.id;
    assert_eq!(deliver(AttemptId::new(), "sandbox", "x", 60).await, Delivered::Missing);
    assert_eq!(deliver(id, "elsewhere", "x", 60).await, Delivered::Missing);
    assert_eq!(deliver(id, "sandbox", "first", 60).await, Delivered::Stored);
    assert_eq!(deliver(id, "sandbox", "second", 61).await, Delivered::Stored);
    let read = store.work(id, WORKER).await.unwrap().unwrap();
    assert_eq!(
        (read.attempt.inbox.as_deref(), read.attempt.due_at),
        (Some(&b"first"[..]), at(61))
    );
    assert_eq!(
        read.attempt.steps, 1,
        "a webhook takes no step: the worker's next one is still good"
    );
    won(&*store, settle(&work, delivered(&work, 10))).await;
    assert_eq!(deliver(id, "sandbox", "late", 70).await, Delivered::Over);
    let sending = brought_to(&*store, user, 10, AttemptState::Sending).await;
    assert_eq!(
        deliver(sending.attempt.id, "sandbox", "early", 70).await,
        Delivered::Stored
    );
    let prepared = begun(&*store, user, 10).await;
    assert_eq!(
        deliver(prepared.attempt.id, "sandbox", "odd", 70).await,
        Delivered::Over
    );
    in_order(&*store).await;
}

pub async fn the_operator_finds_attempts(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let mut unknown = Vec::new();
    for _ in 0..3 {
        unknown.push(brought_to(&*store, user, 5, AttemptState::Unknown).await.attempt.id);
    }
    let accepted = brought_to(&*store, user, 5, AttemptState::Accepted).await;
    let found = store.attempts_in(AttemptState::Unknown, 2).await.unwrap();
    assert_eq!(found.iter().map(|(a, _)| a.id).collect::<Vec<_>>(), unknown[..2]);
    assert!(found.iter().all(|(a, g)| a.generation_id == g.id && g.user_id == user));
    let (attempt, generation) = store.newest_attempt(accepted.generation.id).await.unwrap().unwrap();
    assert_eq!(
        (attempt.id, generation.id),
        (accepted.attempt.id, accepted.generation.id)
    );
    let queued = submit(&*store, request(user, 5)).await;
    for id in [queued.id, GenerationId::new()] {
        assert!(store.newest_attempt(id).await.unwrap().is_none());
    }
    in_order(&*store).await;
}
