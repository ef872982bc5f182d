//! Balances, statements, grants.

use super::Stage;
use super::fixtures::*;
use velro::generation::AttemptState;
use velro::id::UserId;
use velro::ledger::{Credits, LineType};
use velro::store::{CreditStats, Grant, StatementFilter};

pub(super) fn grant(user: UserId, amount: i64, key: Option<&str>) -> Grant {
    Grant {
        user_id: user,
        amount: Credits(amount),
        reason: "For your patience".into(),
        actor: "operator ada".into(),
        idempotency_key: key.map(str::to_owned),
        now: at(60),
    }
}

pub async fn grants_are_booked_once_per_key(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let first = store.grant(grant(user, 50, Some("k1"))).await.unwrap().unwrap();
    assert_eq!((first.available, first.replayed), (Credits(150), false));
    let again = store.grant(grant(user, 50, Some("k1"))).await.unwrap().unwrap();
    assert_eq!((again.available, again.replayed), (Credits(150), true));
    for _ in 0..2 {
        store.grant(grant(user, 5, None)).await.unwrap().unwrap();
    }
    let expected = [
        ("bonus", 100, 100),
        ("bonus", 50, 150),
        ("bonus", 5, 155),
        ("bonus", 5, 160),
    ];
    assert_eq!(amounts(&*store, user).await, expected);
    assert_eq!(lines(&*store, user).await[1].description, "For your patience");
    assert!(
        store
            .grant(grant(UserId::new(), 5, Some("k2")))
            .await
            .unwrap()
            .is_none()
    );
    for amount in [0, -5] {
        assert!(store.grant(grant(user, amount, None)).await.is_err());
    }
    assert_eq!(money(&*store, user).await, (160, 0));
    in_order(&*store).await;
}

pub async fn statements_are_filtered_and_paged(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let other = somebody(&*store, 77).await.id;
    for price in [10, 20, 30] {
        submit(&*store, request(user, price)).await;
    }
    let filter = |line_type, skip, limit| StatementFilter { line_type, skip, limit };
    let all = store.statement(user, filter(None, 0, 50)).await.unwrap();
    let amounts: Vec<i64> = all.items.iter().map(|l| l.amount.0).collect();
    assert_eq!((amounts, all.total), (vec![-30, -20, -10, 100], 4));
    let page = store
        .statement(user, filter(Some(LineType::Usage), 1, 1))
        .await
        .unwrap();
    assert_eq!(
        (page.items.len(), page.items[0].amount, page.total),
        (1, Credits(-20), 3)
    );
    let beyond = store.statement(user, filter(None, u64::MAX, 5)).await.unwrap();
    assert_eq!((beyond.items.len(), beyond.total), (0, 4));
    let none = store
        .statement(user, filter(Some(LineType::Refund), 0, 5))
        .await
        .unwrap();
    assert_eq!((none.items.len(), none.total), (0, 0));
    assert_eq!(store.statement(other, filter(None, 0, 5)).await.unwrap().total, 1);
    in_order(&*store).await;
}

pub async fn stats_count_what_happened_in_the_period(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let delivered_work = brought_to(&*store, user, 40, AttemptState::Accepted).await;
    won(&*store, settle(&delivered_work, delivered(&delivered_work, 30))).await;
    let failed_work = brought_to(&*store, user, 100, AttemptState::Accepted).await;
    won(&*store, settle(&failed_work, failed(AttemptState::Finished))).await;
    submit(&*store, request(user, 7)).await;

    let stats = store.credit_stats(user, at(0)).await.unwrap();
    let expected = CreditStats {
        available: Credits(963),
        spent: Credits(37),
        purchased: Credits(1000),
        generation_count: 1,
        transaction_count: 6,
    };
    assert_eq!(stats, expected);
    let later = store.credit_stats(user, at(1)).await.unwrap();
    assert_eq!(
        (later.purchased, later.spent, later.transaction_count),
        (Credits(0), Credits(37), 5)
    );
    let now = store.credit_stats(user, at(51)).await.unwrap();
    let nothing = CreditStats {
        available: Credits(963),
        ..CreditStats::default()
    };
    assert_eq!(now, nothing);
    in_order(&*store).await;
}

pub async fn strangers_have_no_account(stage: &dyn Stage) {
    let store = stage.open().await;
    let stranger = UserId::new();
    assert!(store.balance(stranger).await.unwrap().is_none());
    let none = store.statement(stranger, StatementFilter::default()).await.unwrap();
    assert_eq!(none.total, 0);
    assert_eq!(
        store.credit_stats(stranger, at(0)).await.unwrap(),
        CreditStats::default()
    );
    in_order(&*store).await;
}
