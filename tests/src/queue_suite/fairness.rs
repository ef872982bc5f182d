//! Whose turn it is.

use super::{LANE, claim, depth, job, jobs, limits};
use velro::id::UserId;
use velro::queue::{Job, Queue};

pub async fn a_thousand_jobs_do_not_starve_the_other_users(queue: &dyn Queue) {
    let heavy = UserId::new();
    queue.enqueue(&jobs(heavy, 1000)).await.unwrap();
    let light: Vec<Job> = (0..20).map(|_| job(UserId::new(), 5)).collect();
    queue.enqueue(&light).await.unwrap();
    let (mut heavy_done, mut light_done) = (0, 0);
    let mut running = std::collections::VecDeque::new();
    // Four at a time; the oldest ends when nothing more may begin.
    while light_done < 20 {
        while let Some(job) = claim(queue, limits(4, 4)).await {
            running.push_back(job);
        }
        assert_eq!(running.len(), 4);
        let done = running.pop_front().unwrap();
        queue.free(LANE, done.id).await.unwrap();
        match done.user_id == heavy {
            true => heavy_done += 1,
            false => light_done += 1,
        }
    }
    assert!(
        heavy_done < 50,
        "{heavy_done} heavy jobs ended before the last light one"
    );
    assert_eq!(depth(queue).await, (1020 - 20 - heavy_done - 3, 3));
}

pub async fn a_user_who_pays_more_waits_longer(queue: &dyn Queue) {
    let (dear, cheap) = (UserId::new(), UserId::new());
    queue.enqueue(&[job(dear, 40), job(dear, 40)]).await.unwrap();
    let many: Vec<Job> = (0..8).map(|_| job(cheap, 10)).collect();
    queue.enqueue(&many).await.unwrap();
    let mut order = Vec::new();
    while let Some(job) = claim(queue, limits(100, 100)).await {
        order.push(job.user_id == dear);
    }
    let first_five = order[..5].iter().filter(|is_dear| **is_dear).count();
    assert_eq!((order.len(), first_five), (10, 1), "{order:?}");
    let seconds: Vec<usize> = (0..10).filter(|at| order[*at]).collect();
    assert!(
        seconds[1] >= 5,
        "the second dear job starts at 40, with the fifth cheap one: {order:?}"
    );
}

pub async fn equal_starts_go_by_age(queue: &dyn Queue) {
    let mut all: Vec<Job> = (0..8).map(|_| job(UserId::new(), 5)).collect();
    let by_age: Vec<_> = all.iter().map(|job| job.id).collect();
    all.reverse();
    queue.enqueue(&all).await.unwrap();
    for (rank, id) in (0..).zip(&by_age) {
        assert_eq!(queue.position(LANE, *id).await.unwrap(), Some(rank));
    }
    for id in by_age {
        assert_eq!(claim(queue, limits(100, 100)).await.unwrap().id, id);
    }
}

pub async fn lanes_do_not_disturb_each_other(queue: &dyn Queue) {
    let user = UserId::new();
    let here = job(user, 5);
    let there = Job {
        provider: "sandbox".into(),
        ..job(user, 5)
    };
    queue.enqueue(&[here.clone(), there.clone()]).await.unwrap();
    assert_eq!(claim(queue, limits(1, 1)).await, Some(here.clone()));
    assert_eq!(claim(queue, limits(1, 1)).await, None);
    assert_eq!(queue.position("sandbox", there.id).await.unwrap(), Some(0));
    assert_eq!(queue.position(LANE, there.id).await.unwrap(), None);
    queue.remove("sandbox", here.id).await.unwrap();
    assert_eq!(depth(queue).await, (0, 1), "it runs in another lane");
    assert_eq!(queue.claim("sandbox", limits(1, 1)).await.unwrap(), Some(there));
}

pub async fn positions_are_ranks_over_all_users(queue: &dyn Queue) {
    let busy = jobs(UserId::new(), 3);
    queue.enqueue(&busy).await.unwrap();
    let late = job(UserId::new(), 5);
    queue.enqueue(std::slice::from_ref(&late)).await.unwrap();
    for (id, rank) in [(busy[0].id, 0), (late.id, 1), (busy[1].id, 2), (busy[2].id, 3)] {
        assert_eq!(queue.position(LANE, id).await.unwrap(), Some(rank));
    }
    queue.remove(LANE, late.id).await.unwrap();
    assert_eq!(queue.position(LANE, late.id).await.unwrap(), None);
    assert_eq!(queue.position(LANE, busy[2].id).await.unwrap(), Some(2));
    claim(queue, limits(1, 1)).await.unwrap();
    assert_eq!(queue.position(LANE, busy[0].id).await.unwrap(), None, "it runs");
    assert_eq!(
        queue.position(LANE, busy[2].id).await.unwrap(),
        Some(1),
        "a full user waits too"
    );
}

pub async fn an_empty_lane_answers(queue: &dyn Queue) {
    let nobody = job(UserId::new(), 5).id;
    assert_eq!(claim(queue, limits(5, 5)).await, None);
    assert_eq!(queue.position(LANE, nobody).await.unwrap(), None);
    queue.free(LANE, nobody).await.unwrap();
    queue.remove(LANE, nobody).await.unwrap();
    queue.enqueue(&[]).await.unwrap();
    queue.occupy(&[]).await.unwrap();
    assert_eq!(depth(queue).await, (0, 0));
}
