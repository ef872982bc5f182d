//! The operator's desk: people, corrections, refunds, pauses, and the audit of all of it.

use super::Stage;
use super::fixtures::*;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use velro::generation::{AttemptState, Status};
use velro::id::{GenerationId, UserId};
use velro::ledger::Credits;
use velro::pause::{Mode, Scope};
use velro::store::{
    AuditEntry, AuditFilter, By, ChangeUser, Correct, Corrected, CorrectionKind, Refund, Refunded, Role, SetPause,
    Store, Submitted, UserChange, UserChanged, UserFilter,
};

/// Ada, who has a reason.
pub(super) fn by(seconds: i64) -> By {
    By {
        actor: "operator ada".into(),
        reason: "because".into(),
        now: at(seconds),
    }
}

async fn audit_of(store: &dyn Store, subject: &str) -> Vec<AuditEntry> {
    let filter = AuditFilter {
        subject: Some(subject.into()),
        limit: 100,
        ..AuditFilter::default()
    };
    let mut entries = store.audit(filter).await.unwrap().items;
    entries.reverse();
    entries
}

pub(super) async fn actions(store: &dyn Store, subject: &str) -> Vec<String> {
    let entries = audit_of(store, subject).await;
    entries.into_iter().map(|entry| entry.action).collect()
}

fn change(user_id: UserId, change: UserChange) -> ChangeUser {
    ChangeUser {
        user_id,
        change,
        by: by(60),
    }
}

async fn changed(store: &dyn Store, wanted: ChangeUser) -> bool {
    match store.change_user(wanted).await.unwrap() {
        UserChanged::Done { changed, .. } => changed,
        other => panic!("{other:?}"),
    }
}

pub async fn the_last_operator_stays_one(stage: &dyn Stage) {
    let store = stage.open().await;
    let [ann, bob] = [somebody(&*store, 0).await.id, somebody(&*store, 0).await.id];
    let promote = UserChange::Role(Role::Operator);
    assert!(changed(&*store, change(ann, promote)).await);
    assert!(!changed(&*store, change(ann, promote)).await, "it is so already");
    for takes_away in [UserChange::Role(Role::User), UserChange::Suspend] {
        let refused = store.change_user(change(ann, takes_away)).await.unwrap();
        assert_eq!(refused, UserChanged::LastOperator);
    }
    assert!(changed(&*store, change(bob, promote)).await);
    // Each takes the other's role at the same moment: one of them is refused.
    let demote = |id| store.change_user(change(id, UserChange::Role(Role::User)));
    let (one, other) = tokio::join!(demote(ann), demote(bob));
    let refused = [one.unwrap(), other.unwrap()].map(|done| done == UserChanged::LastOperator);
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 1);
    let filter = UserFilter {
        role: Some(Role::Operator),
        limit: 9,
        ..UserFilter::default()
    };
    assert_eq!(store.people(filter).await.unwrap().items.len(), 1);
    let missing = store.change_user(change(UserId::new(), promote)).await.unwrap();
    assert_eq!(missing, UserChanged::Missing);
    assert_eq!(actions(&*store, &ann.to_string()).await[0], "user.role");
    let first = audit_of(&*store, &ann.to_string()).await.remove(0);
    assert_eq!(
        (first.actor.as_str(), first.reason.as_str(), first.created_at),
        ("operator ada", "because", at(60))
    );
    assert_eq!(
        (&first.details["before"]["role"], &first.details["after"]["role"]),
        (&json!("user"), &json!("operator"))
    );
    in_order(&*store).await;
}

pub async fn a_suspended_person_spends_nothing_until_it_is_taken_back(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let running = brought_to(&*store, user, 10, AttemptState::Accepted).await;
    assert!(changed(&*store, change(user, UserChange::Suspend)).await);
    let stored = store.user(user).await.unwrap().unwrap();
    assert_eq!(
        (stored.suspended_at, stored.suspended_reason.as_deref()),
        (Some(at(60)), Some("because"))
    );
    let refused = store.submit(request(user, 10)).await.unwrap();
    assert!(matches!(refused, Submitted::Suspended), "{refused:?}");
    // What runs goes on.
    won(&*store, settle(&running, delivered(&running, 10))).await;
    assert!(!changed(&*store, change(user, UserChange::Suspend)).await);
    assert!(changed(&*store, change(user, UserChange::Unsuspend)).await);
    assert!(!changed(&*store, change(user, UserChange::Unsuspend)).await);
    submit(&*store, request(user, 10)).await;
    assert_eq!(
        actions(&*store, &user.to_string()).await,
        ["user.suspend", "user.unsuspend"]
    );
    in_order(&*store).await;
}

pub async fn people_are_found_page_by_page(stage: &dyn Stage) {
    let store = stage.open().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let user = new_user(&format!("ann{n}@example.com"), n);
        ids.push(user.id);
        store.create_user(user).await.unwrap();
    }
    let other = somebody(&*store, 7).await;
    store.change_user(change(other.id, UserChange::Suspend)).await.unwrap();
    let find = |email: &str, after| {
        let email = Some(email.to_owned());
        let filter = UserFilter {
            email,
            after,
            limit: 2,
            ..UserFilter::default()
        };
        store.people(filter)
    };
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = find("ann", after).await.unwrap();
        after = page.items.last().map(|p| p.user.id);
        found.extend(page.items.iter().map(|p| (p.user.id, p.balance.available().0)));
        if !page.more {
            break;
        }
    }
    let expected: Vec<_> = ids.into_iter().zip([0, 1, 2, 3, 4]).rev().collect();
    assert_eq!(found, expected);
    assert_eq!(find("%", None).await.unwrap().items.len(), 0, "no pattern");
    let filter = UserFilter {
        suspended: Some(true),
        limit: 9,
        ..UserFilter::default()
    };
    let suspended = store.people(filter).await.unwrap().items;
    assert_eq!(suspended.iter().map(|p| p.user.id).collect::<Vec<_>>(), [other.id]);
    in_order(&*store).await;
}

fn correct(user_id: UserId, kind: CorrectionKind, amount: i64, key: Option<&str>) -> Correct {
    Correct {
        user_id,
        kind,
        amount: Credits(amount),
        by: by(60),
        idempotency_key: key.map(str::to_owned),
    }
}

pub async fn a_correction_takes_what_is_there_and_no_more(stage: &dyn Stage) {
    use CorrectionKind::{Correction, Grant};
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    submit(&*store, request(user, 30)).await;
    let done = |available, replayed| Corrected::Done {
        available: Credits(available),
        replayed,
    };
    let book = |kind, amount, key| store.correct(correct(user, kind, amount, key));
    let too_much = book(Correction, -71, None).await.unwrap();
    assert_eq!(too_much, Corrected::TooMuch { available: Credits(70) });
    assert_eq!(book(Correction, -70, Some("k1")).await.unwrap(), done(0, false));
    assert_eq!(book(Correction, -70, Some("k1")).await.unwrap(), done(0, true));
    assert_eq!(book(Correction, -7, Some("k1")).await.unwrap(), Corrected::KeyReused);
    assert_eq!(book(Grant, 70, Some("k1")).await.unwrap(), Corrected::KeyReused);
    assert_eq!(book(Grant, 50, Some("k2")).await.unwrap(), done(50, false));
    assert_eq!(book(Grant, 50, Some("k2")).await.unwrap(), done(50, true));
    assert_eq!(book(Correction, 5, None).await.unwrap(), done(55, false));
    let stranger = store.correct(correct(UserId::new(), Grant, 5, None)).await.unwrap();
    assert_eq!(stranger, Corrected::Missing);
    for (kind, amount) in [(Grant, 0), (Grant, -5), (Correction, 0)] {
        assert!(book(kind, amount, None).await.is_err());
    }
    let expected = [
        ("bonus", 100, 100),
        ("usage", -30, 70),
        ("bonus", -70, 0),
        ("bonus", 50, 50),
        ("bonus", 5, 55),
    ];
    assert_eq!(amounts(&*store, user).await, expected);
    let audit = audit_of(&*store, &user.to_string()).await;
    let told: Vec<(&str, &Value, &Value)> = audit
        .iter()
        .map(|e| {
            (
                e.action.as_str(),
                &e.details["before"]["available"],
                &e.details["after"]["available"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("credits.correct", &json!(70), &json!(0)),
            ("credits.grant", &json!(0), &json!(50)),
            ("credits.correct", &json!(50), &json!(55)),
        ],
        "once for each that was booked"
    );
    in_order(&*store).await;
}

pub async fn corrections_at_once_never_overdraw(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let take = |_| store.correct(correct(user, CorrectionKind::Correction, -30, None));
    let outcomes = join_all((0..10).map(take)).await;
    let booked = outcomes
        .into_iter()
        .filter(|outcome| matches!(outcome, Ok(Corrected::Done { .. })))
        .count();
    assert_eq!((booked, money(&*store, user).await), (3, (10, 0)));
    in_order(&*store).await;
}

pub(super) fn refund(id: GenerationId, amount: Option<i64>, key: Option<&str>) -> Refund {
    Refund {
        generation_id: id,
        amount: amount.map(Credits),
        by: by(70),
        idempotency_key: key.map(str::to_owned),
    }
}

pub async fn a_charge_is_given_back_in_parts_and_never_more_than_it_was(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 50, AttemptState::Accepted).await;
    let id = work.generation.id;
    let give = |amount, key| store.refund(refund(id, amount, key));
    let early = give(None, None).await.unwrap();
    assert_eq!(early, Refunded::NotCharged(Status::Processing));
    won(&*store, settle(&work, delivered(&work, 40))).await;
    assert_eq!(money(&*store, user).await, (60, 0));
    assert_eq!(
        give(Some(41), Some("a")).await.unwrap(),
        Refunded::TooMuch { left: Credits(40) }
    );

    let Refunded::Done {
        generation,
        amount,
        available,
        replayed: false,
    } = give(Some(15), Some("a")).await.unwrap()
    else {
        panic!("not refunded")
    };
    assert_eq!(
        (generation.refunded, amount, available),
        (Credits(15), Credits(15), Credits(75))
    );
    let again = give(Some(15), Some("a")).await.unwrap();
    assert!(
        matches!(
            &again,
            Refunded::Done {
                replayed: true,
                available: Credits(75),
                ..
            }
        ),
        "{again:?}"
    );
    assert_eq!(give(Some(16), Some("a")).await.unwrap(), Refunded::KeyReused);
    assert_eq!(
        give(Some(26), Some("b")).await.unwrap(),
        Refunded::TooMuch { left: Credits(25) }
    );
    let rest = give(None, None).await.unwrap();
    assert!(
        matches!(
            &rest,
            Refunded::Done {
                amount: Credits(25),
                replayed: false,
                ..
            }
        ),
        "{rest:?}"
    );
    for _ in 0..2 {
        let nothing = give(None, None).await.unwrap();
        assert!(
            matches!(&nothing, Refunded::NothingLeft(g) if g.refunded == Credits(40)),
            "{nothing:?}"
        );
    }
    // The owner sees it: lines, and the generation in every way it is read.
    let lines = lines(&*store, user).await;
    let last: Vec<_> = lines
        .iter()
        .rev()
        .take(2)
        .map(|l| (l.line_type.as_str(), l.amount.0))
        .collect();
    assert_eq!(last, [("refund", 25), ("refund", 15)]);
    assert_eq!(
        (
            lines[lines.len() - 1].generation_id,
            lines[lines.len() - 1].description.as_str()
        ),
        (Some(id), "Refund: because")
    );
    let seen = store.generation(user, id).await.unwrap().unwrap();
    assert_eq!(
        (seen.captured, seen.refunded, seen.status),
        (Some(Credits(40)), Credits(40), Status::Completed)
    );
    let filter = velro::store::GenerationFilter {
        limit: 5,
        ..Default::default()
    };
    assert_eq!(
        store.generations(user, filter).await.unwrap().items[0].refunded,
        Credits(40)
    );
    assert_eq!(
        store.case(id).await.unwrap().unwrap().case.generation.refunded,
        Credits(40)
    );
    assert_eq!(money(&*store, user).await, (100, 0));
    assert_eq!(actions(&*store, &id.to_string()).await, ["generation.refund"; 2]);
    let missing = store.refund(refund(GenerationId::new(), None, None)).await.unwrap();
    assert_eq!(missing, Refunded::Missing);
    assert!(store.refund(refund(id, Some(0), None)).await.is_err());
    in_order(&*store).await;
}

pub async fn refunds_at_once_give_back_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let work = brought_to(&*store, user, 50, AttemptState::Accepted).await;
    let id = work.generation.id;
    won(&*store, settle(&work, delivered(&work, 50))).await;
    let outcomes = join_all((0..20).map(|_| store.refund(refund(id, None, None)))).await;
    let booked = |o: &Result<Refunded, _>| matches!(o, Ok(Refunded::Done { replayed: false, .. }));
    assert_eq!(outcomes.iter().filter(|o| booked(o)).count(), 1);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(money(&*store, user).await, (100, 0));
    assert_eq!(actions(&*store, &id.to_string()).await.len(), 1);
    in_order(&*store).await;
}

pub async fn the_audit_is_read_by_who_what_and_when(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    for n in 0..5 {
        let correction = Correct {
            by: By {
                actor: format!("cli:{}", n % 2),
                reason: format!("reason {n}"),
                now: at(60 + n),
            },
            ..correct(user, CorrectionKind::Grant, 5, None)
        };
        store.correct(correction).await.unwrap();
    }
    store.change_user(change(user, UserChange::Suspend)).await.unwrap();
    let read = |filter: AuditFilter| {
        let store = Arc::clone(&store);
        async move {
            let page = store.audit(filter).await.unwrap();
            let reasons: Vec<_> = page.items.iter().map(|e| e.reason.clone()).collect();
            (reasons, page.more, page.items.last().map(|e| e.seq))
        }
    };
    let base = AuditFilter {
        limit: 2,
        ..AuditFilter::default()
    };
    let (reasons, more, last) = read(base.clone()).await;
    assert_eq!((reasons, more), (vec!["because".to_owned(), "reason 4".into()], true));
    let (reasons, more, last) = read(AuditFilter {
        after: last,
        ..base.clone()
    })
    .await;
    assert_eq!((reasons, more), (vec!["reason 3".to_owned(), "reason 2".into()], true));
    let (reasons, more, _) = read(AuditFilter {
        after: last,
        ..base.clone()
    })
    .await;
    assert_eq!((reasons, more), (vec!["reason 1".to_owned(), "reason 0".into()], false));
    let read = &read;
    let count = |filter: AuditFilter| async move { read(AuditFilter { limit: 9, ..filter }).await.0.len() };
    assert_eq!(
        count(AuditFilter {
            actor: Some("cli:1".into()),
            ..base.clone()
        })
        .await,
        2
    );
    assert_eq!(
        count(AuditFilter {
            subject: Some(user.to_string()),
            ..base.clone()
        })
        .await,
        6
    );
    assert_eq!(
        count(AuditFilter {
            action: Some("user.suspend".into()),
            ..base.clone()
        })
        .await,
        1
    );
    let window = AuditFilter {
        since: Some(at(61)),
        until: Some(at(63)),
        ..base
    };
    assert_eq!(count(window).await, 2);
    in_order(&*store).await;
}

pub async fn pauses_are_kept_with_who_and_why(stage: &dyn Stage) {
    let store = stage.open().await;
    assert_eq!(store.pauses().await.unwrap(), []);
    let set = |scope: Scope, mode, seconds| {
        store.set_pause(SetPause {
            scope,
            mode,
            by: by(seconds),
        })
    };
    let fal = Scope::Provider("fal".into());
    assert_eq!(set(fal.clone(), Mode::Paused, 60).await.unwrap(), Mode::Running);
    assert_eq!(set(Scope::Queue, Mode::Draining, 61).await.unwrap(), Mode::Running);
    assert_eq!(set(fal.clone(), Mode::Running, 62).await.unwrap(), Mode::Paused);
    // As another process, or this one after a restart, finds them.
    let other = stage.open().await;
    let found: Vec<_> = other
        .pauses()
        .await
        .unwrap()
        .into_iter()
        .map(|p| (p.scope, p.mode, p.actor, p.reason, p.created_at))
        .collect();
    let row = |scope, mode, seconds| {
        (
            scope,
            mode,
            "operator ada".to_owned(),
            "because".to_owned(),
            at(seconds),
        )
    };
    assert_eq!(
        found,
        [row(fal, Mode::Running, 62), row(Scope::Queue, Mode::Draining, 61)]
    );
    assert_eq!(actions(&*store, "provider:fal").await, ["pause.set"; 2]);
    in_order(&*store).await;
}
