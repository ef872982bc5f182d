//! Care of one's own account: sessions, password, and what is left of somebody who has left.

use super::Stage;
use super::fixtures::*;
use velro::generation::AttemptState;
use velro::id::{ApiKeyId, GenerationId, ProjectId, SessionId, UserId};
use velro::store::{
    Created, GenerationFilter, NewApiKey, NewProject, NewSession, Origin, ProfileChange, ProjectFilter, Scope, Store,
    Visibility,
};

async fn session(store: &dyn Store, user: UserId, now: i64) -> SessionId {
    let id = SessionId::new();
    let new = NewSession {
        id,
        user_id: user,
        refresh_hash: id.to_string(),
        refresh_expires_at: at(1000),
        password_hash: None,
        origin: Origin {
            user_agent: Some("a test".into()),
            address: Some("192.0.2.7".into()),
        },
        now: at(now),
    };
    store.open_session(new).await.unwrap();
    id
}

async fn open(store: &dyn Store, user: UserId) -> Vec<SessionId> {
    let sessions = store.sessions(user, at(100)).await.unwrap();
    sessions.iter().map(|s| s.id).collect()
}

pub async fn sessions_are_listed_and_ended_by_their_owner(stage: &dyn Stage) {
    let store = stage.open().await;
    let (ada, bob) = (somebody(&*store, 0).await.id, somebody(&*store, 0).await.id);
    let [first, second, third] = [
        session(&*store, ada, 10).await,
        session(&*store, ada, 20).await,
        session(&*store, ada, 30).await,
    ];
    let theirs = session(&*store, bob, 40).await;
    let listed = store.sessions(ada, at(100)).await.unwrap();
    assert_eq!(listed.iter().map(|s| s.id).collect::<Vec<_>>(), [third, second, first]);
    let newest = &listed[0];
    let told = (
        newest.created_at,
        newest.last_used_at,
        newest.origin.user_agent.as_deref(),
    );
    assert_eq!(told, (at(30), at(30), Some("a test")));
    assert!(
        store.sessions(ada, at(2000)).await.unwrap().is_empty(),
        "none can be renewed any more"
    );

    assert_eq!(
        store.end_sessions(ada, Some(second), None, at(50)).await.unwrap(),
        [second]
    );
    assert!(
        store
            .end_sessions(ada, Some(second), None, at(51))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        store
            .end_sessions(ada, Some(theirs), None, at(52))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.end_sessions(ada, None, Some(third), at(53)).await.unwrap(),
        [first]
    );
    assert_eq!(
        (open(&*store, ada).await, open(&*store, bob).await),
        (vec![third], vec![theirs])
    );
    let ended = store.revoked_since(at(45)).await.unwrap();
    assert_eq!(ended, [(second, at(50)), (first, at(53))]);
    in_order(&*store).await;
}

pub async fn another_password_ends_the_other_sessions(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await;
    let (old, user) = (user.password_hash, user.id);
    let (here, there) = (session(&*store, user, 10).await, session(&*store, user, 20).await);
    let ended = store
        .change_password(user, old, "$argon2id$new".into(), here, at(30))
        .await
        .unwrap();
    assert_eq!(ended, Some(vec![there]));
    assert_eq!(open(&*store, user).await, [here]);
    // Whoever proved the old password a moment ago is too late, to sign in as to change it.
    let late = NewSession {
        id: SessionId::new(),
        user_id: user,
        refresh_hash: "late".into(),
        refresh_expires_at: at(1000),
        password_hash: Some("$argon2id$...".into()),
        origin: Origin::default(),
        now: at(31),
    };
    assert!(!store.open_session(late).await.unwrap());
    let old = Some("$argon2id$...".to_owned());
    let again = store
        .change_password(user, old, "$argon2id$late".into(), here, at(32))
        .await;
    assert_eq!(again.unwrap(), None);
    assert_eq!(open(&*store, user).await, [here]);
    let stored = store.user(user).await.unwrap().unwrap();
    assert_eq!(stored.password_hash.as_deref(), Some("$argon2id$new"));
    in_order(&*store).await;
}

pub async fn whoever_leaves_leaves_only_the_books(stage: &dyn Stage) {
    let store = stage.open().await;
    let stays = lived_in(&*store).await;
    let user = somebody(&*store, 1000).await;
    let email = user.email.clone();
    let project = NewProject {
        id: ProjectId::new(),
        user_id: user.id,
        name: "private".into(),
        description: None,
        visibility: Visibility::Private,
        tags: Vec::new(),
        metadata: serde_json::Map::new(),
        now: at(5),
    };
    store.create_project(project).await.unwrap();
    let key = NewApiKey {
        id: ApiKeyId::new(),
        user_id: user.id,
        name: "k".into(),
        hash: "hash of a key".into(),
        hint: "velro_sk_x3Tf".into(),
        scopes: vec![Scope::Read],
        models: None,
        spending_cap: None,
        expires_at: None,
        most: 5,
        now: at(5),
    };
    let key_id = key.id;
    assert!(matches!(store.create_api_key(key).await.unwrap(), Created::New(_)));
    let sign_in = session(&*store, user.id, 6).await;
    let mut ended = Vec::new();
    for _ in 0..3 {
        let work = brought_to(&*store, user.id, 40, AttemptState::Accepted).await;
        won(&*store, settle(&work, delivered(&work, 40))).await;
        ended.push(work.generation.id);
    }
    store.delete_generation(user.id, ended[0], at(55)).await.unwrap();
    let running = brought_to(&*store, user.id, 100, AttemptState::Accepted).await;

    // Nothing of anybody who has not left.
    store.erase(user.id, &ended).await.unwrap();
    assert!(store.to_erase(None, 10).await.unwrap().is_empty());
    assert_eq!(store.leftovers(user.id, 10).await.unwrap(), Default::default());
    assert!(!store.finish_erasing(user.id, at(1000), at(56)).await.unwrap());
    let shown = store.generation(user.id, ended[1]).await.unwrap().unwrap();
    assert_eq!(shown.prompt, "a nice cat");

    assert!(store.delete_user(user.id, at(60)).await.unwrap());
    assert!(!store.delete_user(user.id, at(61)).await.unwrap());
    let gone = store.user(user.id).await.unwrap().unwrap();
    assert_eq!(
        (
            gone.deleted_at,
            gone.shown_email(),
            &gone.full_name,
            &gone.password_hash
        ),
        (Some(at(60)), "", &None, &None)
    );
    assert!(store.user_by_email(&email).await.unwrap().is_none());
    assert!(store.api_key_by_hash("hash of a key").await.unwrap().is_none());
    assert!(open(&*store, user.id).await.is_empty());
    let revoked: Vec<SessionId> = store
        .revoked_since(at(58))
        .await
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    for id in [sign_in, SessionId::from(key_id.uuid()), SessionId::from(user.id.uuid())] {
        assert!(revoked.contains(&id), "{id}");
    }
    // Somebody else may have the address now.
    assert!(matches!(
        store.create_user(new_user(&email, 5)).await.unwrap(),
        Created::New(_)
    ));
    // A change that comes late changes nothing that counts, and nothing is spent any more.
    store
        .update_profile(user.id, ProfileChange::default(), at(62))
        .await
        .unwrap();
    let refused = store.submit(request(user.id, 1)).await.unwrap();
    assert!(matches!(refused, velro::store::Submitted::Suspended), "{refused:?}");

    // In steps of any size, each of which may be the last one for a while.
    assert_eq!(store.to_erase(None, 10).await.unwrap(), [user.id]);
    assert!(store.to_erase(Some(user.id), 10).await.unwrap().is_empty());
    let late = NewSession {
        id: SessionId::new(),
        user_id: user.id,
        refresh_hash: "late".into(),
        refresh_expires_at: at(1000),
        password_hash: None,
        origin: Origin::default(),
        now: at(61),
    };
    assert!(
        !store.open_session(late).await.unwrap(),
        "a login in flight comes too late"
    );
    let mut files = Vec::new();
    let mut erased: Vec<GenerationId> = Vec::new();
    loop {
        let left = store.leftovers(user.id, 2).await.unwrap();
        assert_eq!(left.unfinished, [running.generation.id]);
        if left.ended.is_empty() {
            break;
        }
        files.extend(left.files);
        store.erase(user.id, &left.ended).await.unwrap();
        erased.extend(left.ended);
    }
    ended.sort();
    assert_eq!(erased, ended);
    assert_eq!(files.len(), 3);
    assert!(
        !store.finish_erasing(user.id, at(1000), at(70)).await.unwrap(),
        "one goes on"
    );
    won(&*store, settle(&running, delivered(&running, 70))).await;
    let left = store.leftovers(user.id, 2).await.unwrap();
    assert_eq!(
        (left.ended.clone(), left.unfinished),
        (vec![running.generation.id], Vec::new())
    );
    store.erase(user.id, &left.ended).await.unwrap();
    assert!(
        !store.finish_erasing(user.id, at(60), at(71)).await.unwrap(),
        "not so soon"
    );
    assert!(store.finish_erasing(user.id, at(61), at(71)).await.unwrap());
    assert!(
        store.finish_erasing(user.id, at(1000), at(72)).await.unwrap(),
        "again is harmless"
    );
    assert!(store.to_erase(None, 10).await.unwrap().is_empty());

    let all = GenerationFilter {
        limit: 100,
        ..GenerationFilter::default()
    };
    for generation in store.generations(user.id, all).await.unwrap().items {
        let words = [generation.prompt.as_str(), generation.provider_input.as_str()];
        assert_eq!(
            (words, generation.outputs.len(), generation.parameters.len()),
            (["", ""], 0, 0)
        );
        assert!(generation.captured.is_some_and(|c| c.0 > 0), "what it cost stays");
    }
    let projects = ProjectFilter {
        visibility: None,
        skip: 0,
        limit: 10,
    };
    assert!(store.projects(user.id, projects).await.unwrap().is_empty());
    assert_eq!(money(&*store, user.id).await, (1000 - 120 - 70, 0));
    assert_eq!(lines(&*store, user.id).await.len(), 6);
    // And of others nothing is gone.
    let others = store
        .generations(
            stays,
            GenerationFilter {
                limit: 100,
                ..GenerationFilter::default()
            },
        )
        .await
        .unwrap();
    assert!(others.items.iter().all(|g| g.prompt == "a nice cat"));
    in_order(&*store).await;
}
