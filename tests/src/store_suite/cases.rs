//! Generations as the operator sees them: found across users, found to need a hand, ended by hand.

use super::Stage;
use super::desk::{actions, refund};
use super::fixtures::*;
use std::sync::Arc;
use velro::generation::{AttemptState, Status};
use velro::id::GenerationId;
use velro::ledger::Credits;
use velro::store::{CaseFilter, Resolution, Resolve, Resolved, Saved, Search, Settled};

fn end(id: GenerationId) -> Resolve {
    Resolve {
        generation_id: id,
        resolution: Resolution::Refund,
        even_running: true,
        actor: "operator ada".into(),
        reason: "hangs".into(),
        now: at(80),
    }
}

pub async fn what_is_held_too_long_is_ended_and_its_worker_loses(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let queued = submit(&*store, request(user, 10)).await;
    let mut works = Vec::new();
    for state in [
        AttemptState::Prepared,
        AttemptState::Sending,
        AttemptState::Accepted,
        AttemptState::Unknown,
    ] {
        works.push(brought_to(&*store, user, 10, state).await);
    }
    let ids = works.iter().map(|w| w.generation.id).chain([queued.id]);
    for id in ids {
        let Resolved::Done { generation, events } = store.resolve_unknown(end(id)).await.unwrap() else {
            panic!("not ended")
        };
        assert_eq!(
            (generation.status, generation.captured),
            (Status::Failed, Some(Credits(0)))
        );
        assert_eq!(events.len(), 1);
        let again = store.resolve_unknown(end(id)).await.unwrap();
        assert!(matches!(again, Resolved::NotUnknown(_)), "{again:?}");
        assert_eq!(actions(&*store, &id.to_string()).await, ["generation.resolve"]);
    }
    // Whoever had them in hand finds out, and changes nothing.
    for work in &works {
        let lost = store.save_step(step(work, AttemptState::Accepted)).await.unwrap();
        assert!(matches!(lost, Saved::Lost), "{lost:?}");
        let lost = store.settle(settle(work, delivered(work, 10))).await.unwrap();
        assert!(matches!(lost, Settled::Lost), "{lost:?}");
        assert!(store.work(work.attempt.id, WORKER).await.unwrap().is_none());
    }
    assert!(store.begin_attempt(begin(queued.id, WORKER)).await.unwrap().is_none());
    let code = |g: &velro::generation::Generation| g.error.as_ref().unwrap().code.clone();
    let ended = store.generation(user, queued.id).await.unwrap().unwrap();
    assert_eq!(code(&ended), "ended_by_operator");
    let lost_answer = store.generation(user, works[3].generation.id).await.unwrap().unwrap();
    assert_eq!(code(&lost_answer), "outcome_unknown");
    // Only a refund ends what runs: the others say what happened to a lost request.
    let running = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    let retry = Resolve {
        resolution: Resolution::Retry,
        ..end(running.generation.id)
    };
    assert!(matches!(
        store.resolve_unknown(retry).await.unwrap(),
        Resolved::NotUnknown(_)
    ));
    won(&*store, settle(&running, delivered(&running, 10))).await;
    assert_eq!(money(&*store, user).await, (990, 0));
    in_order(&*store).await;
}

pub async fn ending_by_hand_and_settling_have_one_winner(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    for _ in 0..10 {
        let work = brought_to(&*store, user, 10, AttemptState::Accepted).await;
        let by_worker = settle(&work, delivered(&work, 10));
        let (ended, settled) = tokio::join!(store.resolve_unknown(end(work.generation.id)), store.settle(by_worker));
        let ended = matches!(ended.unwrap(), Resolved::Done { .. });
        let settled = matches!(settled.unwrap(), Settled::Won { .. });
        assert!(ended != settled, "{ended} {settled}");
    }
    in_order(&*store).await;
}

pub async fn cases_are_found_across_users(stage: &dyn Stage) {
    let store = stage.open().await;
    let [ann, bob] = [somebody(&*store, 1000).await, somebody(&*store, 1000).await];
    let mut ids = Vec::new();
    for n in 0..5 {
        let user = if n % 2 == 0 { ann.id } else { bob.id };
        ids.push(submit(&*store, request(user, 10)).await.id);
    }
    let work = brought_to(&*store, bob.id, 10, AttemptState::Accepted).await;
    let find = |filter: CaseFilter| store.cases(filter);
    let all = CaseFilter {
        limit: 4,
        ..CaseFilter::default()
    };
    let first = find(all.clone()).await.unwrap();
    assert_eq!((first.items.len(), first.more), (4, true));
    assert_eq!(first.items[0].generation.id, work.generation.id);
    assert_eq!(first.items[0].email, bob.email);
    assert_eq!(
        first.items[0].attempt.as_ref().map(|a| (a.id, a.state)),
        Some((work.attempt.id, AttemptState::Accepted))
    );
    assert!(first.items[1].attempt.is_none());
    let after = Some(first.items[3].generation.id);
    let rest = find(CaseFilter { after, ..all.clone() }).await.unwrap();
    let rest_ids: Vec<_> = rest.items.iter().map(|c| c.generation.id).collect();
    assert_eq!((rest_ids, rest.more), (vec![ids[1], ids[0]], false));
    for (filter, expected) in [
        (
            CaseFilter {
                user_id: Some(ann.id),
                limit: 9,
                ..CaseFilter::default()
            },
            3,
        ),
        (
            CaseFilter {
                status: Some(Status::Processing),
                limit: 9,
                ..CaseFilter::default()
            },
            1,
        ),
        (
            CaseFilter {
                provider: Some("sandbox".into()),
                limit: 9,
                ..CaseFilter::default()
            },
            6,
        ),
        (
            CaseFilter {
                provider: Some("fal".into()),
                limit: 9,
                ..CaseFilter::default()
            },
            0,
        ),
        (
            CaseFilter {
                model_id: Some(MODEL.into()),
                limit: 9,
                ..CaseFilter::default()
            },
            6,
        ),
    ] {
        assert_eq!(find(filter.clone()).await.unwrap().items.len(), expected, "{filter:?}");
    }
    let file = store.case(work.generation.id).await.unwrap().unwrap();
    assert_eq!(
        (file.attempts.len(), file.attempts[0].lease_owner.as_deref()),
        (1, Some(WORKER))
    );
    assert_eq!(file.events.len(), 2);
    assert!(store.case(GenerationId::new()).await.unwrap().is_none());
    in_order(&*store).await;
}

pub async fn what_needs_a_hand_is_found(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let found = |search, after| {
        let store = Arc::clone(&store);
        async move {
            let page = store.search(search, after, 2).await.unwrap();
            (
                page.items.iter().map(|c| c.generation.id).collect::<Vec<_>>(),
                page.more,
            )
        }
    };
    let mut charged = Vec::new();
    for _ in 0..3 {
        let work = brought_to(&*store, user, 10, AttemptState::Accepted).await;
        won(&*store, settle(&work, delivered(&work, 10))).await;
        charged.push(work.generation.id);
    }
    let free = brought_to(&*store, user, 0, AttemptState::Accepted).await;
    won(&*store, settle(&free, delivered(&free, 0))).await;
    let failing = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    won(&*store, settle(&failing, failed(AttemptState::Finished))).await;
    let unknown = brought_to(&*store, user, 10, AttemptState::Unknown).await.generation.id;
    let accepted = brought_to(&*store, user, 10, AttemptState::Accepted)
        .await
        .generation
        .id;
    let queued = submit(&*store, request(user, 10)).await.id;

    assert_eq!(found(Search::Unknown, None).await, (vec![unknown], false));
    assert_eq!(found(Search::Charged, None).await, (charged[..2].to_vec(), true));
    assert_eq!(
        found(Search::Charged, Some(charged[1])).await,
        (vec![charged[2]], false)
    );
    assert_eq!(found(Search::ChargedWithoutRecord, None).await, (vec![], false));
    assert_eq!(
        found(Search::OpenSince(at(11)), None).await,
        (vec![accepted, queued], false)
    );
    assert_eq!(
        found(Search::OpenSince(at(10)), None).await,
        (vec![], false),
        "submitted at 10"
    );

    // What was given back, or hidden by its owner, needs no hand any more.
    store.refund(refund(charged[0], Some(4), Some("k"))).await.unwrap();
    assert_eq!(found(Search::Charged, None).await.0, charged[..2].to_vec());
    store.refund(refund(charged[0], None, None)).await.unwrap();
    store.delete_generation(user, charged[1], at(90)).await.unwrap();
    assert_eq!(found(Search::Charged, None).await, (vec![charged[2]], false));
    let empty = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    let verdict = velro::store::Verdict::Completed {
        outputs: Vec::new(),
        worth: Credits(10),
        billed: None,
        meta: serde_json::Map::new(),
    };
    won(&*store, settle(&empty, verdict)).await;
    let without = found(Search::ChargedWithoutRecord, None).await;
    assert_eq!(without, (vec![empty.generation.id], false));
    in_order(&*store).await;
}
