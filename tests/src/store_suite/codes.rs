//! Redeem codes: used as often as they say, whoever comes at the same moment.

use super::Stage;
use super::desk::by;
use super::fixtures::*;
use futures_util::future::join_all;
use velro::id::{RedeemCodeId, UserId};
use velro::ledger::Credits;
use velro::store::{ChangeUser, Created, NewCode, Redeem, RedeemCode, Redeemed, Store, UserChange};

fn new(hash: &str, credits: i64, max_uses: u32, per_user_limit: u32) -> NewCode {
    NewCode {
        id: RedeemCodeId::new(),
        hash: hash.into(),
        hint: "7K2M9-...".into(),
        credits: Credits(credits),
        max_uses,
        per_user_limit,
        note: "launch".into(),
        expires_at: None,
        by: by(10),
    }
}

async fn make(store: &dyn Store, new: NewCode) -> RedeemCode {
    match store.create_code(new).await.unwrap() {
        Created::New(code) => code,
        Created::Taken => panic!("taken"),
    }
}

async fn redeem(store: &dyn Store, user_id: UserId, hash: &str) -> Redeemed {
    let redeem = Redeem {
        user_id,
        hash: hash.into(),
        now: at(100),
    };
    store.redeem(redeem).await.unwrap()
}

pub async fn a_code_gives_what_it_says_as_often_as_it_says(stage: &dyn Stage) {
    let store = stage.open().await;
    let [ann, bob, cid] = [
        somebody(&*store, 10).await.id,
        somebody(&*store, 0).await.id,
        somebody(&*store, 0).await.id,
    ];
    let code = make(&*store, new("aa", 50, 3, 2)).await;
    assert_eq!(
        (code.uses, code.created_by.as_str(), code.note.as_str()),
        (0, "operator ada", "launch")
    );
    assert!(matches!(
        store.create_code(new("aa", 1, 1, 1)).await.unwrap(),
        Created::Taken
    ));
    let done = |available| Redeemed::Done {
        credits: Credits(50),
        available: Credits(available),
    };
    assert_eq!(redeem(&*store, ann, "bb").await, Redeemed::Unknown);
    assert_eq!(redeem(&*store, ann, "aa").await, done(60));
    assert_eq!(redeem(&*store, ann, "aa").await, done(110));
    assert_eq!(redeem(&*store, ann, "aa").await, Redeemed::AlreadyRedeemed);
    assert_eq!(redeem(&*store, bob, "aa").await, done(50));
    assert_eq!(redeem(&*store, cid, "aa").await, Redeemed::UsedUp);
    assert_eq!(redeem(&*store, bob, "aa").await, Redeemed::UsedUp);
    assert_eq!(redeem(&*store, UserId::new(), "aa").await, Redeemed::NoSuchUser);

    let (stored, uses) = store.code(code.id).await.unwrap().unwrap();
    assert_eq!((stored.uses, uses.len()), (3, 3));
    let mut seen: Vec<_> = uses.iter().map(|u| (u.user_id, u.ordinal)).collect();
    seen.sort();
    assert_eq!(seen, [(ann, 1), (ann, 2), (bob, 1)]);
    assert_eq!(
        amounts(&*store, ann).await,
        [("bonus", 10, 10), ("bonus", 50, 60), ("bonus", 50, 110)]
    );
    assert!(lines(&*store, ann).await[1].description.contains("7K2M9"));
    in_order(&*store).await;
}

pub async fn a_code_that_is_over_gives_nothing(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let expires_at = Some(at(100));
    make(
        &*store,
        NewCode {
            expires_at,
            ..new("aa", 5, 9, 1)
        },
    )
    .await;
    let expires_at = Some(at(101));
    make(
        &*store,
        NewCode {
            expires_at,
            ..new("bb", 5, 9, 1)
        },
    )
    .await;
    let ended = make(&*store, new("cc", 5, 9, 1)).await;
    let (code, changed) = store.disable_code(ended.id, by(50)).await.unwrap().unwrap();
    assert_eq!((code.disabled_at, changed), (Some(at(50)), true));
    let (code, changed) = store.disable_code(ended.id, by(51)).await.unwrap().unwrap();
    assert_eq!((code.disabled_at, changed), (Some(at(50)), false));
    assert!(store.disable_code(RedeemCodeId::new(), by(50)).await.unwrap().is_none());
    assert_eq!(redeem(&*store, user, "aa").await, Redeemed::Expired);
    assert_eq!(redeem(&*store, user, "cc").await, Redeemed::Unknown);
    let suspend = |change| ChangeUser {
        user_id: user,
        change,
        by: by(60),
    };
    store.change_user(suspend(UserChange::Suspend)).await.unwrap();
    assert_eq!(redeem(&*store, user, "bb").await, Redeemed::Suspended);
    store.change_user(suspend(UserChange::Unsuspend)).await.unwrap();
    assert!(matches!(redeem(&*store, user, "bb").await, Redeemed::Done { .. }));
    assert_eq!(money(&*store, user).await, (5, 0));
    let first = store.codes(None, 2).await.unwrap();
    assert_eq!((first.items.len(), first.more, first.items[0].id), (2, true, ended.id));
    let rest = store.codes(Some(first.items[1].id), 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
    in_order(&*store).await;
}

pub async fn fifty_people_at_once_use_a_code_once(stage: &dyn Stage) {
    let store = stage.open().await;
    make(&*store, new("aa", 50, 1, 1)).await;
    let mut people = Vec::new();
    for _ in 0..50 {
        people.push(somebody(&*store, 0).await.id);
    }
    let outcomes = join_all(people.iter().map(|user| redeem(&*store, *user, "aa"))).await;
    let count = |wanted: fn(&Redeemed) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    assert_eq!(count(|o| matches!(o, Redeemed::Done { .. })), 1, "{outcomes:?}");
    assert_eq!(count(|o| *o == Redeemed::UsedUp), 49);
    let mut rich = 0;
    for user in people {
        rich += money(&*store, user).await.0;
    }
    assert_eq!(rich, 50);
    in_order(&*store).await;
}

pub async fn one_person_fifty_times_at_once_uses_a_code_once(stage: &dyn Stage) {
    let store = stage.open().await;
    make(&*store, new("aa", 50, 1000, 1)).await;
    let user = somebody(&*store, 0).await.id;
    let outcomes = join_all((0..50).map(|_| redeem(&*store, user, "aa"))).await;
    let count = |wanted: fn(&Redeemed) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    assert_eq!(count(|o| matches!(o, Redeemed::Done { .. })), 1, "{outcomes:?}");
    assert_eq!(count(|o| *o == Redeemed::AlreadyRedeemed), 49);
    assert_eq!(money(&*store, user).await, (50, 0));
    in_order(&*store).await;
}
