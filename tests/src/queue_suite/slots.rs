//! How many may run.

use super::{LANE, claim, depth, job, jobs, limits};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::timeout;
use velro::id::UserId;
use velro::queue::{Kept, Queue};

pub async fn limits_hold_and_a_full_user_is_passed_over(queue: &dyn Queue) {
    let (ann, bob) = (UserId::new(), UserId::new());
    let (a1, a2, b1) = (job(ann, 5), job(ann, 5), job(bob, 5));
    queue.enqueue(&[a1.clone(), a2.clone(), b1]).await.unwrap();
    let first = claim(queue, limits(2, 1)).await.unwrap();
    let second = claim(queue, limits(2, 1)).await.unwrap();
    assert_eq!(
        HashSet::from([first.user_id, second.user_id]),
        HashSet::from([ann, bob])
    );
    assert_eq!(claim(queue, limits(2, 1)).await, None, "the lane is full");
    assert_eq!(claim(queue, limits(3, 1)).await, None, "the user is full");
    queue.free(LANE, a1.id).await.unwrap();
    assert_eq!(claim(queue, limits(2, 1)).await, Some(a2));
    assert_eq!(depth(queue).await, (0, 2));
}

pub async fn a_job_is_enqueued_once(queue: &dyn Queue) {
    let only = job(UserId::new(), 5);
    for _ in 0..2 {
        queue.enqueue(&[only.clone(), only.clone()]).await.unwrap();
    }
    assert_eq!(depth(queue).await, (1, 0));
    assert_eq!(claim(queue, limits(5, 5)).await, Some(only.clone()));
    queue.enqueue(std::slice::from_ref(&only)).await.unwrap();
    assert_eq!(depth(queue).await, (0, 1), "it runs");
    queue.free(LANE, only.id).await.unwrap();
    queue.enqueue(std::slice::from_ref(&only)).await.unwrap();
    assert_eq!(claim(queue, limits(5, 5)).await, Some(only));
}

pub async fn what_runs_already_may_exceed_the_limits(queue: &dyn Queue) {
    let user = UserId::new();
    let running = jobs(user, 5);
    queue.occupy(&running).await.unwrap();
    queue.occupy(&running).await.unwrap();
    assert_eq!(depth(queue).await, (0, 5));
    let next = job(user, 5);
    queue.enqueue(std::slice::from_ref(&next)).await.unwrap();
    for job in &running[..4] {
        assert_eq!(claim(queue, limits(2, 2)).await, None);
        queue.free(LANE, job.id).await.unwrap();
    }
    assert_eq!(claim(queue, limits(2, 2)).await, Some(next));
}

pub async fn a_job_that_waits_can_be_occupied(queue: &dyn Queue) {
    let user = UserId::new();
    let waiting = jobs(user, 3);
    queue.enqueue(&waiting).await.unwrap();
    queue.occupy(&waiting[..1]).await.unwrap();
    assert_eq!(depth(queue).await, (2, 1));
    assert_eq!(queue.position(LANE, waiting[0].id).await.unwrap(), None);
    assert_eq!(queue.position(LANE, waiting[1].id).await.unwrap(), Some(0));
    assert_eq!(claim(queue, limits(5, 5)).await.unwrap().id, waiting[1].id);
}

pub async fn raised_limits_bring_parked_users_back(queue: &dyn Queue) {
    let (ann, bob) = (UserId::new(), UserId::new());
    queue.enqueue(&jobs(ann, 3)).await.unwrap();
    queue.enqueue(&jobs(bob, 3)).await.unwrap();
    for _ in 0..2 {
        assert!(claim(queue, limits(10, 1)).await.is_some());
    }
    assert_eq!(claim(queue, limits(10, 1)).await, None, "both are parked");
    for _ in 0..2 {
        assert!(claim(queue, limits(10, 2)).await.is_some());
    }
    assert_eq!(claim(queue, limits(10, 2)).await, None);
    assert_eq!(claim(queue, limits(10, 1)).await, None);
    for _ in 0..2 {
        assert!(claim(queue, limits(10, 5)).await.is_some());
    }
    assert_eq!(depth(queue).await, (0, 6));
}

pub async fn a_parked_user_comes_back_with_a_free_slot(queue: &dyn Queue) {
    let user = UserId::new();
    let mine = jobs(user, 4);
    queue.enqueue(&mine).await.unwrap();
    let first = claim(queue, limits(10, 1)).await.unwrap();
    assert_eq!(claim(queue, limits(10, 1)).await, None);
    // The parked head goes, and a new job arrives behind.
    queue.remove(LANE, mine[1].id).await.unwrap();
    let late = job(user, 5);
    queue.enqueue(std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(claim(queue, limits(10, 1)).await, None);
    queue.free(LANE, first.id).await.unwrap();
    for expected in [&mine[2], &mine[3], &late] {
        let claimed = claim(queue, limits(10, 1)).await.unwrap();
        assert_eq!(&claimed, expected);
        queue.remove(LANE, claimed.id).await.unwrap();
    }
    assert_eq!(depth(queue).await, (0, 0));
}

pub async fn only_a_held_slot_is_freed(queue: &dyn Queue) {
    let waiting = job(UserId::new(), 5);
    queue.enqueue(std::slice::from_ref(&waiting)).await.unwrap();
    queue.free(LANE, waiting.id).await.unwrap();
    assert_eq!(depth(queue).await, (1, 0), "what waits is not taken out");
    queue.remove(LANE, waiting.id).await.unwrap();
    queue.remove(LANE, waiting.id).await.unwrap();
    assert_eq!(depth(queue).await, (0, 0));
}

pub async fn removed_jobs_leave_nothing_behind(queue: &dyn Queue) {
    let users: Vec<UserId> = (0..3).map(|_| UserId::new()).collect();
    let all: Vec<_> = users.iter().flat_map(|user| jobs(*user, 4)).collect();
    queue.enqueue(&all).await.unwrap();
    while claim(queue, limits(4, 2)).await.is_some() {}
    for job in &all {
        queue.remove(LANE, job.id).await.unwrap();
    }
    assert_eq!(depth(queue).await, (0, 0));
    assert_eq!(claim(queue, limits(4, 2)).await, None);
    let again: Vec<_> = users.iter().map(|user| job(*user, 5)).collect();
    queue.enqueue(&again).await.unwrap();
    for _ in 0..3 {
        assert!(claim(queue, limits(3, 1)).await.is_some());
    }
}

pub async fn only_what_is_held_keeps_its_slot(queue: &dyn Queue) {
    let (user, all) = (UserId::new(), limits(700, 700));
    let many = jobs(user, 620);
    queue.enqueue(&many).await.unwrap();
    while claim(queue, all).await.is_some() {}
    assert_eq!(depth(queue).await, (0, 620));
    // One that nobody knew of is occupied, and only a few of those claimed are known.
    let mut mine = many[617..].to_vec();
    mine.push(job(user, 5));
    queue.hold_only(&mine).await.unwrap();
    assert_eq!(depth(queue).await, (0, 4));
    queue.enqueue(&many).await.unwrap();
    assert_eq!(depth(queue).await, (617, 4), "what had its slot by mistake waits again");
    assert_eq!(claim(queue, limits(4, 4)).await, None);
    assert_eq!(claim(queue, limits(5, 5)).await.as_ref(), Some(&many[0]));
    queue.hold_only(&[]).await.unwrap();
    assert_eq!(depth(queue).await, (616, 0));
}

pub async fn leaving_frees_every_slot(queue: &dyn Queue) {
    let user = UserId::new();
    queue.enqueue(&jobs(user, 3)).await.unwrap();
    while claim(queue, limits(2, 2)).await.is_some() {}
    assert_eq!(queue.keep().await.unwrap(), Kept::Kept);
    assert_eq!(depth(queue).await, (1, 2));
    queue.leave().await.unwrap();
    assert_eq!(depth(queue).await, (1, 0));
    assert!(claim(queue, limits(2, 2)).await.is_some());
}

pub async fn a_change_wakes_who_waits(queue: &dyn Queue) {
    let news = async |what| {
        let woken = timeout(Duration::from_secs(10), queue.changed()).await;
        woken.unwrap_or_else(|_| panic!("nobody was woken by {what}"));
    };
    let waiting = jobs(UserId::new(), 3);
    queue.enqueue(&waiting).await.unwrap();
    news("an enqueue").await;
    let claimed = claim(queue, limits(5, 5)).await.unwrap();
    queue.free(LANE, claimed.id).await.unwrap();
    news("a free slot").await;
    queue.remove(LANE, waiting[1].id).await.unwrap();
    news("a removal").await;
}
