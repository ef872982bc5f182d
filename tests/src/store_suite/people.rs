//! People and sessions.

use super::Stage;
use super::desk::by;
use super::fixtures::*;
use velro::id::{SessionId, UserId};
use velro::store::{
    Arrival, ChangeUser, Created, NewSession, Origin, ProfileChange, Role, Rotated, Rotation, Store, UserChange,
    UserChanged,
};

fn rotation(old: &str, new: &str, now: i64) -> Rotation {
    Rotation {
        old_hash: old.into(),
        new_hash: new.into(),
        new_expires_at: at(2000),
        origin: Origin::default(),
        now: at(now),
    }
}

/// Opens a session with one refresh token that runs out at `at(1000)`.
pub(super) async fn session(store: &dyn Store, user: UserId, hash: &str) -> SessionId {
    let id = SessionId::new();
    let session = NewSession {
        id,
        user_id: user,
        refresh_hash: hash.into(),
        refresh_expires_at: at(1000),
        password_hash: None,
        origin: Origin::default(),
        now: at(5),
    };
    store.open_session(session).await.unwrap();
    id
}

pub async fn a_person_is_created_once_with_start_credits(stage: &dyn Stage) {
    let store = stage.open().await;
    store.ping().await.unwrap();
    let new = new_user("ada@example.com", 1000);
    let id = new.id;
    let Created::New(user) = store.create_user(new).await.unwrap() else {
        panic!("taken")
    };
    assert_eq!(
        (user.id, user.email.as_str(), user.role),
        (id, "ada@example.com", Role::User)
    );
    assert_eq!(user.full_name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(
        (user.display_name.clone(), user.avatar_url.clone(), user.last_sign_in_at),
        (None, None, None)
    );
    assert_eq!(
        (user.created_at, user.updated_at, user.plan.as_str()),
        (at(0), at(0), "free")
    );
    assert_eq!(store.user(id).await.unwrap(), Some(user.clone()));
    assert_eq!(store.user_by_email("ada@example.com").await.unwrap(), Some(user));

    let again = store.create_user(new_user("ada@example.com", 500)).await.unwrap();
    assert_eq!(again, Created::Taken);
    assert_eq!(money(&*store, id).await, (1000, 0));
    assert_eq!(amounts(&*store, id).await, [("bonus", 1000, 1000)]);

    let poor = somebody(&*store, 0).await;
    assert_eq!(money(&*store, poor.id).await, (0, 0));
    assert!(lines(&*store, poor.id).await.is_empty());
    assert_eq!(store.user(UserId::new()).await.unwrap(), None);
    assert_eq!(store.user_by_email("nobody@example.com").await.unwrap(), None);
    let report = in_order(&*store).await;
    assert_eq!((report.accounts, report.transfers, report.open_holds), (6, 1, 0));
}

pub async fn a_profile_changes_where_it_is_told_to(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    let change = ProfileChange {
        display_name: Some(Some("ada".into())),
        avatar_url: Some(Some("https://example.com/a.png".into())),
        ..ProfileChange::default()
    };
    let changed = store.update_profile(user.id, change, at(7)).await.unwrap().unwrap();
    assert_eq!(changed.full_name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(changed.display_name.as_deref(), Some("ada"));
    assert_eq!((changed.created_at, changed.updated_at), (at(0), at(7)));
    let clear = ProfileChange {
        full_name: Some(None),
        avatar_url: Some(None),
        ..ProfileChange::default()
    };
    let cleared = store.update_profile(user.id, clear, at(8)).await.unwrap().unwrap();
    assert_eq!((cleared.full_name.clone(), cleared.avatar_url.clone()), (None, None));
    assert_eq!(cleared.display_name.as_deref(), Some("ada"));
    assert_eq!(store.user(user.id).await.unwrap(), Some(cleared));
    let nobody = store
        .update_profile(UserId::new(), ProfileChange::default(), at(9))
        .await
        .unwrap();
    assert_eq!(nobody, None);
    in_order(&*store).await;
}

pub async fn roles_are_given(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    let promote = |user_id| ChangeUser {
        user_id,
        change: UserChange::Role(Role::Operator),
        by: by(3),
    };
    let UserChanged::Done {
        user: promoted,
        changed,
    } = store.change_user(promote(user.id)).await.unwrap()
    else {
        panic!("nobody was promoted")
    };
    assert_eq!((promoted.role, changed), (Role::Operator, true));
    assert_eq!(store.user(user.id).await.unwrap().unwrap().role, Role::Operator);
    let nobody = store.change_user(promote(UserId::new())).await.unwrap();
    assert_eq!(nobody, UserChanged::Missing);
    in_order(&*store).await;
}

pub async fn a_session_lives_until_it_is_revoked(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    let first = session(&*store, user.id, "first").await;
    let second = session(&*store, user.id, "second").await;
    assert_eq!(store.user(user.id).await.unwrap().unwrap().last_sign_in_at, Some(at(5)));
    store.revoke_session(first, at(10)).await.unwrap();
    store.revoke_session(first, at(11)).await.unwrap();
    store.revoke_session(SessionId::new(), at(11)).await.unwrap();
    assert_eq!(store.revoked_since(at(10)).await.unwrap(), [(first, at(10))]);
    assert_eq!(store.revoked_since(at(11)).await.unwrap(), []);
    let dead = store.rotate_refresh(rotation("first", "next", 12)).await.unwrap();
    assert!(matches!(dead, Rotated::Invalid), "{dead:?}");
    let alive = store.rotate_refresh(rotation("second", "next", 12)).await.unwrap();
    assert!(
        matches!(alive, Rotated::Ok { session, .. } if session == second),
        "{alive:?}"
    );
    in_order(&*store).await;
}

pub async fn a_refresh_token_is_exchanged_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    let id = session(&*store, user.id, "one").await;
    let Rotated::Ok { user: who, session } = store.rotate_refresh(rotation("one", "two", 10)).await.unwrap() else {
        panic!("a fresh token is refused")
    };
    assert_eq!((who.id, session), (user.id, id));
    let next = store.rotate_refresh(rotation("two", "three", 20)).await.unwrap();
    assert!(matches!(next, Rotated::Ok { .. }), "{next:?}");
    let reused = store.rotate_refresh(rotation("one", "stolen", 30)).await.unwrap();
    assert!(
        matches!(reused, Rotated::Reused { session } if session == id),
        "{reused:?}"
    );
    for hash in ["one", "two", "three", "stolen"] {
        let dead = store.rotate_refresh(rotation(hash, "four", 40)).await.unwrap();
        assert!(matches!(dead, Rotated::Invalid), "{hash}: {dead:?}");
    }
    assert_eq!(store.revoked_since(at(0)).await.unwrap(), [(id, at(30))]);
    in_order(&*store).await;
}

pub async fn dead_refresh_tokens_are_invalid(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    session(&*store, user.id, "old").await;
    for (hash, now) in [("unknown", 10), ("old", 1000), ("old", 5000)] {
        let dead = store.rotate_refresh(rotation(hash, "new", now)).await.unwrap();
        assert!(matches!(dead, Rotated::Invalid), "{hash}: {dead:?}");
    }
    let still = store.rotate_refresh(rotation("old", "new", 999)).await.unwrap();
    assert!(matches!(still, Rotated::Ok { .. }), "{still:?}");
    in_order(&*store).await;
}

pub async fn somebody_of_elsewhere_arrives_once_and_is_followed(stage: &dyn Stage) {
    let store = stage.open().await;
    let id = UserId::new();
    let user = store.ensure_user(arrival(id, "ada@example.com", 1000)).await.unwrap();
    assert_eq!(
        (user.id, user.email.as_str(), user.role),
        (id, "ada@example.com", Role::User)
    );
    assert_eq!((user.password_hash.clone(), user.last_sign_in_at), (None, None));
    assert_eq!(user.full_name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(amounts(&*store, id).await, [("bonus", 1000, 1000)]);

    // What is not fresh changes nothing, whatever it says.
    let stale = Arrival {
        full_name: None,
        role: Role::Operator,
        signed_in: true,
        now: at(5),
        ..arrival(id, "other@example.com", 500)
    };
    assert_eq!(store.ensure_user(stale.clone()).await.unwrap(), user);
    let fresh = Arrival { fresh: true, ..stale };
    assert!(fresh.differs_from(&user));
    let followed = store.ensure_user(fresh.clone()).await.unwrap();
    assert_eq!(
        (followed.email.as_str(), followed.role),
        ("other@example.com", Role::Operator)
    );
    assert_eq!(
        followed.full_name.as_deref(),
        Some("Ada Lovelace"),
        "no name is no news"
    );
    assert_eq!((followed.updated_at, followed.last_sign_in_at), (at(5), Some(at(5))));
    assert!(!fresh.differs_from(&followed));
    // A sign-in alone changes nothing else, and nobody ceases to be an operator by it.
    let again = Arrival {
        role: Role::User,
        now: at(9),
        ..fresh
    };
    let again = store.ensure_user(again).await.unwrap();
    assert_eq!(
        (again.role, again.updated_at, again.last_sign_in_at),
        (Role::Operator, at(5), Some(at(9)))
    );
    assert_eq!(store.user(id).await.unwrap(), Some(again));
    assert_eq!(money(&*store, id).await, (1000, 0));

    // Without an address, as many as there are.
    for _ in 0..2 {
        let phone = store.ensure_user(arrival(UserId::new(), "", 0)).await.unwrap();
        assert_eq!(phone.shown_email(), "");
        assert_eq!(money(&*store, phone.id).await, (0, 0));
    }
    in_order(&*store).await;
}

pub async fn an_address_goes_to_its_newest_owner(stage: &dyn Stage) {
    let store = stage.open().await;
    let (first, second) = (UserId::new(), UserId::new());
    store.ensure_user(arrival(first, "ada@example.com", 10)).await.unwrap();
    // Deleted and registered again elsewhere.
    let owner = store.ensure_user(arrival(second, "ada@example.com", 10)).await.unwrap();
    assert_eq!((owner.id, owner.email.as_str()), (second, "ada@example.com"));
    let former = store.user(first).await.unwrap().unwrap();
    assert_eq!(former.shown_email(), "");
    assert_eq!(store.user_by_email("ada@example.com").await.unwrap(), Some(owner));
    // A swap, one proof after the other.
    let fresh = |id, email: &str| Arrival {
        fresh: true,
        ..arrival(id, email, 0)
    };
    store.ensure_user(fresh(first, "bob@example.com")).await.unwrap();
    store.ensure_user(fresh(second, "bob@example.com")).await.unwrap();
    store.ensure_user(fresh(first, "ada@example.com")).await.unwrap();
    for (id, email) in [(first, "ada@example.com"), (second, "bob@example.com")] {
        assert_eq!(store.user(id).await.unwrap().unwrap().email, email);
        assert_eq!(money(&*store, id).await, (10, 0));
    }
    in_order(&*store).await;
}

pub async fn a_session_of_elsewhere_is_ended_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = store.ensure_user(arrival(UserId::new(), "", 0)).await.unwrap();
    let session = SessionId::new();
    store.end_foreign_session(session, user.id, at(5)).await.unwrap();
    store.end_foreign_session(session, user.id, at(9)).await.unwrap();
    assert_eq!(store.revoked_since(at(0)).await.unwrap(), [(session, at(5))]);
    in_order(&*store).await;
}
