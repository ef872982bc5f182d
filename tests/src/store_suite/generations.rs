//! Generations as the customer and the operator see them.

use super::Stage;
use super::fixtures::*;
use serde_json::json;
use velro::generation::{AttemptState, MediaType, Status};
use velro::id::GenerationId;
use velro::ledger::Credits;
use velro::store::{Deleted, GenerationFilter, NewGeneration, ProgressNote, Saved, SystemCounts, Visibility};

pub async fn lists_are_newest_first_with_totals(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let other = somebody(&*store, 1000).await.id;
    let project = super::projects::project(&*store, user, Visibility::Private, 1).await.id;
    let mut ids = Vec::new();
    for i in 0..6 {
        let mut new = request(user, 10);
        new.project_id = (i % 2 == 0).then_some(project);
        ids.push(submit(&*store, new).await.id);
    }
    submit(&*store, request(other, 10)).await;
    store.cancel(user, ids[4], at(60)).await.unwrap();
    ids.reverse();
    let list = async |project_id, status, skip, limit| {
        let filter = GenerationFilter {
            project_id,
            status,
            skip,
            limit,
        };
        let page = store.generations(user, filter).await.unwrap();
        (page.items.iter().map(|g| g.id).collect::<Vec<_>>(), page.total)
    };
    assert_eq!(list(None, None, 0, 50).await, (ids.clone(), 6));
    assert_eq!(list(None, None, 2, 3).await, (ids[2..5].to_vec(), 6));
    assert_eq!(list(None, None, 9, 3).await, (vec![], 6));
    assert_eq!(list(Some(project), None, 0, 9).await, (vec![ids[1], ids[3], ids[5]], 3));
    assert_eq!(list(None, Some(Status::Cancelled), 0, 9).await, (vec![ids[1]], 1));
    assert_eq!(list(Some(project), Some(Status::Queued), 0, 1).await, (vec![ids[3]], 2));
    assert_eq!(store.generation(other, ids[0]).await.unwrap(), None);
    assert_eq!(store.generation(user, GenerationId::new()).await.unwrap(), None);
    in_order(&*store).await;
}

pub async fn stats_count_what_the_owner_sees(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 1000).await.id;
    let done = begun(&*store, user, 40).await;
    won(&*store, settle(&done, delivered(&done, 30))).await;
    let broken = begun(&*store, user, 40).await;
    won(&*store, settle(&broken, failed(AttemptState::Finished))).await;
    let video = NewGeneration {
        media_type: MediaType::Video,
        model_id: "sandbox/film".into(),
        ..request(user, 5)
    };
    let video = submit(&*store, video).await;
    let stopped = submit(&*store, request(user, 5)).await;
    store.cancel(user, stopped.id, at(60)).await.unwrap();
    begun(&*store, user, 5).await;
    store.toggle_favorite(user, video.id, at(60)).await.unwrap();
    let stats = store.generation_stats(user, None).await.unwrap();
    assert_eq!(
        (stats.total, stats.completed, stats.failed, stats.cancelled),
        (5, 1, 1, 1)
    );
    assert_eq!((stats.unfinished, stats.favorites, stats.captured), (2, 1, Credits(30)));
    assert_eq!(json!(stats.by_media_type), json!({"image": 4, "video": 1}));
    assert_eq!(json!(stats.by_model), json!({MODEL: 4, "sandbox/film": 1}));
    let stranger = somebody(&*store, 0).await.id;
    assert_eq!(store.generation_stats(stranger, None).await.unwrap().total, 0);
    in_order(&*store).await;
}

pub async fn favorites_flip(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 10).await.id;
    let stranger = somebody(&*store, 10).await.id;
    let id = submit(&*store, request(user, 1)).await.id;
    for (second, expected) in [(60, true), (61, false), (62, true)] {
        let flipped = store.toggle_favorite(user, id, at(second)).await.unwrap().unwrap();
        assert_eq!((flipped.is_favorite, flipped.updated_at), (expected, at(second)));
    }
    assert_eq!(store.toggle_favorite(stranger, id, at(63)).await.unwrap(), None);
    assert!(store.generation(user, id).await.unwrap().unwrap().is_favorite);
    in_order(&*store).await;
}

pub async fn only_terminal_generations_are_hidden(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let stranger = somebody(&*store, 0).await.id;
    let queued = submit(&*store, request(user, 1)).await.id;
    let work = begun(&*store, user, 40).await;
    let id = work.generation.id;
    assert_eq!(
        store.delete_generation(user, queued, at(60)).await.unwrap(),
        Deleted::Unfinished(Status::Queued)
    );
    assert_eq!(
        store.delete_generation(user, id, at(60)).await.unwrap(),
        Deleted::Unfinished(Status::Processing)
    );
    won(&*store, settle(&work, delivered(&work, 40))).await;
    assert_eq!(
        store.delete_generation(stranger, id, at(60)).await.unwrap(),
        Deleted::Missing
    );
    assert_eq!(
        store.delete_generation(user, id, at(60)).await.unwrap(),
        Deleted::Done(vec![output(id, 0)])
    );
    assert_eq!(
        store.delete_generation(user, id, at(60)).await.unwrap(),
        Deleted::Missing
    );
    assert_eq!(store.generation(user, id).await.unwrap(), None);
    assert_eq!(store.toggle_favorite(user, id, at(61)).await.unwrap(), None);
    assert!(store.cancel(user, id, at(61)).await.unwrap().is_none());
    assert!(store.events(user, id, 0).await.unwrap().is_empty());
    let all = GenerationFilter {
        limit: 9,
        ..GenerationFilter::default()
    };
    assert_eq!(store.generations(user, all).await.unwrap().total, 1);
    assert_eq!(store.generation_stats(user, None).await.unwrap().total, 1);
    // The money of what is hidden stays where it went.
    assert_eq!(money(&*store, user).await, (60, 1));
    assert_eq!(in_order(&*store).await.transfers, 2);
}

pub async fn events_resume_after_a_number(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let stranger = somebody(&*store, 0).await.id;
    let mut work = begun(&*store, user, 40).await;
    let mut noted = step(&work, AttemptState::Accepted);
    noted.progress = Some(ProgressNote {
        permille: Some(250),
        message: Some("drawing".into()),
        queue_position: Some(3),
    });
    let saved = store.save_step(noted).await.unwrap();
    assert!(
        matches!(&saved, Saved::Ok { events, .. } if events.len() == 1),
        "{saved:?}"
    );
    work.attempt.steps += 1;
    won(&*store, settle(&work, delivered(&work, 40))).await;
    let told = told(&*store, &work.generation).await;
    let noted = json!({"status": "processing", "progress": 0.25, "message": "drawing", "queue_position": 3});
    let expected = [
        ("queued", json!({"status": "queued"})),
        ("processing", json!({"status": "processing"})),
        ("processing", noted),
        ("completed", json!({"status": "completed"})),
    ];
    assert_eq!(told, expected);
    let id = work.generation.id;
    let all = store.events(user, id, 0).await.unwrap();
    assert!(all.windows(2).all(|w| w[0].seq < w[1].seq));
    assert_eq!(store.events(user, id, all[1].seq).await.unwrap(), all[2..]);
    assert!(store.events(user, id, all[3].seq).await.unwrap().is_empty());
    assert!(store.events(stranger, id, 0).await.unwrap().is_empty());
    in_order(&*store).await;
}

pub async fn the_queue_can_be_rebuilt_in_order(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 100).await.id;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(submit(&*store, request(user, 3)).await.id);
    }
    store.begin_attempt(begin(ids[1], WORKER)).await.unwrap().unwrap();
    store.cancel(user, ids[3], at(60)).await.unwrap();
    let first = store.queued(None, 2).await.unwrap();
    assert_eq!(first.iter().map(|q| q.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!(
        (first[0].user_id, first[0].price, first[0].created_at),
        (user, Credits(3), at(10))
    );
    assert_eq!(first[0].provider, "sandbox");
    let rest = store.queued(Some(ids[2]), 2).await.unwrap();
    assert_eq!(rest.iter().map(|q| q.id).collect::<Vec<_>>(), [ids[4]]);
    assert!(store.queued(Some(ids[4]), 2).await.unwrap().is_empty());
    in_order(&*store).await;
}

pub async fn the_operator_sees_counts(stage: &dyn Stage) {
    let store = stage.open().await;
    assert_eq!(store.system_counts(at(7)).await.unwrap(), SystemCounts::default());
    let user = somebody(&*store, 100).await.id;
    let mut early = request(user, 3);
    early.now = at(5);
    submit(&*store, early).await;
    submit(&*store, request(user, 4)).await;
    brought_to(&*store, user, 5, AttemptState::Unknown).await;
    let done = begun(&*store, user, 6).await;
    won(&*store, settle(&done, delivered(&done, 6))).await;
    // The one at 5 is open; the one that nobody knows about is another matter, and what has ended is none.
    let counts = store.system_counts(at(7)).await.unwrap();
    assert_eq!(
        json!(counts.by_status),
        json!({"queued": 2, "processing": 1, "completed": 1})
    );
    assert_eq!((counts.unknown_attempts, counts.held), (1, Credits(12)));
    assert_eq!(counts.oldest_queued_at, Some(at(5)));
    assert_eq!(counts.open_too_long, 1);
    assert!(counts.oldest_unknown_at.is_some());
    assert_eq!(store.system_counts(at(5)).await.unwrap().open_too_long, 0);
    in_order(&*store).await;
}
