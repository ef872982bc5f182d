//! What a store says of itself.

use futures_util::future::join_all;
use std::time::Duration;

use super::Stage;
use super::fixtures::{at, in_order};
use velro::clock;
use velro::store::{AuditFilter, By, LedgerCheck, LogLevel, SetLogLevel};

/// The database of a test is on this machine, and so is its clock.
const CLOSE: Duration = Duration::from_secs(1);

/// The clock that all processes follow goes, and tells the time.
pub async fn it_has_a_clock(stage: &dyn Stage) {
    let store = stage.open().await;
    let before = clock::system();
    let first = store.now().await.unwrap();
    let second = store.now().await.unwrap();
    let after = clock::system();
    assert!(
        first >= before.minus(CLOSE) && second <= after.plus(CLOSE),
        "{before:?} {first:?} {after:?}"
    );
    assert!(second >= first);
    store.close().await;
}

/// Of all who ask at the same moment one recomputes the books, and what it finds is known to all.
pub async fn one_of_many_checks_the_books(stage: &dyn Stage) {
    let store = stage.open().await;
    let hour = Duration::from_secs(3600);
    let ask = |minutes: u64| {
        let now = at(0).plus(Duration::from_secs(60 * minutes));
        let asked: Vec<_> = (0..8).map(|_| store.claim_ledger_check(hour, now)).collect();
        async move {
            join_all(asked)
                .await
                .into_iter()
                .filter(|won| *won.as_ref().unwrap())
                .count()
        }
    };
    assert_eq!(ask(0).await, 1, "the first time somebody does it");
    assert_eq!(
        store.system_counts(at(0)).await.unwrap().ledger_check,
        None,
        "it is not done yet"
    );
    assert_eq!(ask(59).await, 0, "somebody is at it, or was");
    let check = LedgerCheck {
        finished_at: at(9),
        took: Duration::from_millis(1500),
        faults: 2,
        charged_without_output: 3,
    };
    store.finish_ledger_check(check).await.unwrap();
    assert_eq!(store.system_counts(at(0)).await.unwrap().ledger_check, Some(check));
    assert_eq!(ask(60).await, 1, "its time has come again");
    let known = store.system_counts(at(0)).await.unwrap().ledger_check;
    assert_eq!(
        known,
        Some(check),
        "what was found last is known until the next is done"
    );
    assert_eq!(in_order(&*store).await.charged_without_output, 0);
}

/// The log level of all processes is set, set anew and taken back, each with an entry in the audit.
pub async fn a_log_level_is_set_for_a_while(stage: &dyn Stage) {
    let store = stage.open().await;
    assert_eq!(store.log_level().await.unwrap(), None);
    let set = |filter: &str, from: i64, until: i64| SetLogLevel {
        filter: filter.into(),
        until: at(until),
        by: By {
            actor: "ann".into(),
            reason: "a search".into(),
            now: at(from),
        },
    };
    store.set_log_level(set("debug", 1, 100)).await.unwrap();
    store
        .set_log_level(set("info,velro::worker=trace", 2, 50))
        .await
        .unwrap();
    let known = LogLevel {
        filter: "info,velro::worker=trace".into(),
        until: at(50),
        actor: "ann".into(),
    };
    assert_eq!(store.log_level().await.unwrap(), Some(known));
    store.set_log_level(set("info", 3, 3)).await.unwrap();
    assert_eq!(store.log_level().await.unwrap().map(|level| level.until), Some(at(3)));
    let filter = AuditFilter {
        action: Some("log.level".into()),
        limit: 10,
        ..AuditFilter::default()
    };
    let audit = store.audit(filter).await.unwrap().items;
    let changes: Vec<_> = audit
        .iter()
        .map(|e| (&e.details["before"]["filter"], &e.details["after"]["filter"]))
        .collect();
    let (debug, trace) = ("debug", "info,velro::worker=trace");
    assert_eq!(
        changes,
        [
            (&serde_json::json!(trace), &serde_json::Value::Null),
            (&serde_json::json!(debug), &serde_json::json!(trace)),
            (&serde_json::Value::Null, &serde_json::json!(debug)),
        ]
    );
}
