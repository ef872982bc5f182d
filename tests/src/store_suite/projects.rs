//! Projects.

use super::Stage;
use super::fixtures::*;
use serde_json::{Map, json};
use velro::id::{ProjectId, UserId};
use velro::store::{NewProject, Project, ProjectChange, ProjectFilter, Store, Visibility};

pub(super) async fn project(store: &dyn Store, user: UserId, visibility: Visibility, now: i64) -> Project {
    let mut metadata = Map::new();
    metadata.insert("colour".into(), json!("blue"));
    let new = NewProject {
        id: ProjectId::new(),
        user_id: user,
        name: "Cats".into(),
        description: Some("Only nice ones".into()),
        visibility,
        tags: vec!["cat".into(), "nice".into()],
        metadata,
        now: at(now),
    };
    store.create_project(new).await.unwrap()
}

async fn listed(store: &dyn Store, viewer: UserId, visibility: Option<Visibility>) -> Vec<ProjectId> {
    let filter = ProjectFilter {
        visibility,
        skip: 0,
        limit: 50,
    };
    store
        .projects(viewer, filter)
        .await
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect()
}

pub async fn the_owner_does_what_strangers_cannot(stage: &dyn Stage) {
    let store = stage.open().await;
    let owner = somebody(&*store, 0).await.id;
    let stranger = somebody(&*store, 0).await.id;
    let made = project(&*store, owner, Visibility::Private, 1).await;
    assert_eq!((made.generation_count, made.tags.len(), made.created_at), (0, 2, at(1)));
    assert_eq!(store.project(owner, made.id).await.unwrap(), Some(made.clone()));
    assert_eq!(store.project(stranger, made.id).await.unwrap(), None);

    let change = ProjectChange {
        name: Some("Dogs".into()),
        visibility: Some(Visibility::Public),
        ..ProjectChange::default()
    };
    assert_eq!(
        store
            .update_project(stranger, made.id, change.clone(), at(2))
            .await
            .unwrap(),
        None
    );
    let changed = store
        .update_project(owner, made.id, change, at(2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (changed.name.as_str(), changed.visibility),
        ("Dogs", Visibility::Public)
    );
    assert_eq!(
        (changed.description.as_deref(), changed.updated_at),
        (Some("Only nice ones"), at(2))
    );
    assert_eq!((&changed.tags, &changed.metadata), (&made.tags, &made.metadata));
    assert_eq!(store.project(stranger, made.id).await.unwrap(), Some(changed));

    let rest = ProjectChange {
        description: Some(String::new()),
        tags: Some(Vec::new()),
        metadata: Some(Map::new()),
        ..ProjectChange::default()
    };
    let rest = store
        .update_project(owner, made.id, rest, at(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (rest.description.as_deref(), rest.tags.len(), rest.metadata.len()),
        (Some(""), 0, 0)
    );
    let touched = store
        .update_project(owner, made.id, ProjectChange::default(), at(9))
        .await
        .unwrap();
    assert_eq!(touched.unwrap().updated_at, at(9));

    assert!(!store.delete_project(stranger, made.id).await.unwrap());
    assert!(store.delete_project(owner, made.id).await.unwrap());
    assert!(!store.delete_project(owner, made.id).await.unwrap());
    assert_eq!(store.project(owner, made.id).await.unwrap(), None);
    in_order(&*store).await;
}

pub async fn lists_follow_visibility(stage: &dyn Stage) {
    let store = stage.open().await;
    let (ada, bob) = (somebody(&*store, 0).await.id, somebody(&*store, 0).await.id);
    let private = project(&*store, ada, Visibility::Private, 1).await.id;
    let team = project(&*store, ada, Visibility::TeamOnly, 2).await.id;
    let public = project(&*store, ada, Visibility::Public, 3).await.id;
    let theirs = project(&*store, bob, Visibility::Public, 4).await.id;
    store
        .update_project(ada, private, ProjectChange::default(), at(5))
        .await
        .unwrap();
    assert_eq!(listed(&*store, ada, None).await, [private, public, team]);
    assert_eq!(listed(&*store, ada, Some(Visibility::Public)).await, [theirs, public]);
    assert_eq!(listed(&*store, ada, Some(Visibility::Private)).await, [private]);
    assert_eq!(listed(&*store, ada, Some(Visibility::TeamOnly)).await, [team]);
    assert_eq!(listed(&*store, bob, None).await, [theirs]);
    assert!(listed(&*store, bob, Some(Visibility::Private)).await.is_empty());
    let second = ProjectFilter {
        visibility: None,
        skip: 1,
        limit: 1,
    };
    assert_eq!(store.projects(ada, second).await.unwrap()[0].id, public);
    in_order(&*store).await;
}

pub async fn generations_outlive_their_project(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let project = project(&*store, user, Visibility::Private, 1).await.id;
    let mut new = request(user, 10);
    new.project_id = Some(project);
    let generation = submit(&*store, new).await;
    assert_eq!(generation.project_id, Some(project));
    assert_eq!(store.project(user, project).await.unwrap().unwrap().generation_count, 1);
    assert_eq!(store.generation_stats(user, Some(project)).await.unwrap().total, 1);
    assert!(store.delete_project(user, project).await.unwrap());
    let left = store.generation(user, generation.id).await.unwrap().unwrap();
    assert_eq!(left.project_id, None);
    in_order(&*store).await;
}
