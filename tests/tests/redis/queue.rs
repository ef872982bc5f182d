//! Several processes over one queue.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::queue_suite::{LANE, claim, depth, job, jobs, limits};
use tests::redis::{OwnRedis, test_link};
use velro::id::UserId;
use velro::queue::live::Live;
use velro::queue::redis::{LIFE, RedisQueue};
use velro::queue::{Kept, Queue};
use velro::shared::Link;

use super::{link_to, until};

/// Much shorter than that of the program.
const SHORT_LIFE: Duration = Duration::from_millis(600);

fn process(link: &Link, life: Duration) -> RedisQueue {
    RedisQueue::new(link.clone(), Arc::new(Live::default()), life)
}

#[tokio::test]
async fn slots_of_a_dead_process_are_freed_and_those_of_a_living_one_are_not() {
    let link = test_link();
    let (first, second) = (process(&link, SHORT_LIFE), process(&link, SHORT_LIFE));
    first.enqueue(&jobs(UserId::new(), 3)).await.unwrap();
    for _ in 0..2 {
        assert!(claim(&first, limits(2, 2)).await.is_some());
    }
    // For three lives of a process that shows itself, nothing is free.
    let began = Instant::now();
    while began.elapsed() < SHORT_LIFE * 3 {
        assert_eq!(first.keep().await.unwrap(), Kept::Kept);
        assert_eq!(claim(&second, limits(2, 2)).await, None);
        assert_eq!(second.keep().await.unwrap(), Kept::Kept);
        tokio::time::sleep(SHORT_LIFE / 12).await;
    }
    until("the slots are still held", || async {
        second.keep().await.unwrap();
        depth(&second).await == (1, 0)
    })
    .await;
    assert!(claim(&second, limits(2, 2)).await.is_some());
    assert_eq!(claim(&first, limits(2, 2)).await, None, "it is told before it goes on");
    assert_eq!(first.keep().await.unwrap(), Kept::Lost);
    assert_eq!(first.keep().await.unwrap(), Kept::Kept);
}

#[tokio::test]
async fn a_claim_frees_what_a_dead_process_held() {
    let link = test_link();
    let (first, second) = (process(&link, SHORT_LIFE), process(&link, LIFE));
    let ten = jobs(UserId::new(), 10);
    first.enqueue(&ten).await.unwrap();
    claim(&first, limits(1, 1)).await.unwrap();
    until("nobody was buried", || async {
        claim(&second, limits(1, 1)).await.is_some()
    })
    .await;
    assert_eq!(depth(&second).await, (8, 1));
}

#[tokio::test]
async fn a_slot_belongs_to_one_process() {
    let link = test_link();
    let (first, second) = (process(&link, LIFE), process(&link, LIFE));
    let two = jobs(UserId::new(), 2);
    first.enqueue(&two).await.unwrap();
    claim(&first, limits(2, 2)).await.unwrap();
    claim(&first, limits(2, 2)).await.unwrap();
    second.free(LANE, two[0].id).await.unwrap();
    assert_eq!(depth(&first).await, (0, 2), "it is not the second's");
    second.occupy(&two[..1]).await.unwrap();
    first.free(LANE, two[0].id).await.unwrap();
    assert_eq!(depth(&first).await, (0, 2), "it is not the first's any more");
    first.leave().await.unwrap();
    assert_eq!(depth(&first).await, (0, 1));
    first.remove(LANE, two[0].id).await.unwrap();
    assert_eq!(depth(&first).await, (0, 0), "what is over is over for all");
}

#[tokio::test]
async fn a_claim_costs_the_same_however_much_waits_for_full_users() {
    let redis = OwnRedis::start();
    let mut costs = Vec::new();
    for waiting in [20, 2000] {
        redis.command("FLUSHALL");
        let queue = process(&link_to(&redis), LIFE);
        let heavy = UserId::new();
        queue.enqueue(&jobs(heavy, waiting)).await.unwrap();
        for _ in 0..2 {
            assert_eq!(claim(&queue, limits(100, 2)).await.unwrap().user_id, heavy);
        }
        let light: Vec<_> = (0..10).map(|_| job(UserId::new(), 5)).collect();
        queue.enqueue(&light).await.unwrap();
        redis.command("CONFIG RESETSTAT");
        for _ in 0..10 {
            assert_ne!(claim(&queue, limits(100, 2)).await.unwrap().user_id, heavy);
        }
        costs.push(redis.commands());
    }
    assert!(costs[1] <= costs[0] + 10, "commands for ten claims: {costs:?}");
}

#[tokio::test]
async fn a_process_with_very_many_slots_is_freed_bit_by_bit() {
    let link = test_link();
    let (first, second) = (process(&link, LIFE), process(&link, LIFE));
    let many = jobs(UserId::new(), 1300);
    first.occupy(&many).await.unwrap();
    assert_eq!(depth(&second).await, (0, 1300));
    first.leave().await.unwrap();
    assert_eq!(depth(&second).await, (0, 0));
}

#[tokio::test]
async fn a_process_that_was_buried_in_part_is_told() {
    let link = test_link();
    let (first, second) = (process(&link, SHORT_LIFE), process(&link, LIFE));
    first.occupy(&jobs(UserId::new(), 1300)).await.unwrap();
    assert_eq!(depth(&second).await, (0, 1300));
    until("nothing was buried", || async {
        assert_eq!(claim(&second, limits(1, 1)).await, None);
        depth(&second).await == (0, 800)
    })
    .await;
    assert_eq!(
        claim(&first, limits(900, 900)).await,
        None,
        "it is told before it goes on"
    );
    assert_eq!(first.keep().await.unwrap(), Kept::Lost);
}

#[tokio::test]
async fn what_redis_did_not_answer_is_made_good() {
    let redis = OwnRedis::start();
    let (link, other) = (link_to(&redis), link_to(&redis));
    let (first, second) = (process(&link, LIFE), process(&other, LIFE));
    let three = jobs(UserId::new(), 3);
    first.enqueue(&three).await.unwrap();
    let running = claim(&first, limits(3, 3)).await.unwrap();
    // Claimed, and the answer was lost.
    claim(&first, limits(3, 3)).await.unwrap();
    assert_eq!(first.keep().await.unwrap(), Kept::Kept);
    redis.hang(true);
    assert!(first.leave().await.is_err() && !link.is_up());
    redis.hang(false);
    until("Redis was not found again", || async { link.is_up() }).await;
    assert_eq!(first.keep().await.unwrap(), Kept::Lost, "it may have missed something");
    first.hold_only(&[running]).await.unwrap();
    first.enqueue(&three).await.unwrap();
    assert_eq!(depth(&second).await, (2, 1));
    assert_eq!(first.keep().await.unwrap(), Kept::Kept, "once");
    redis.hang(true);
    assert!(first.leave().await.is_err());
    redis.hang(false);
    until("Redis was not found again", || async { link.is_up() }).await;
    first.leave().await.unwrap();
    assert_eq!(
        depth(&second).await,
        (2, 0),
        "slots that could not be given back are found again"
    );
}

#[tokio::test]
async fn one_process_does_what_need_not_be_done_by_all() {
    let link = test_link();
    let (first, second) = (process(&link, LIFE), process(&link, LIFE));
    let minute = Duration::from_secs(60);
    assert!(first.is_my_turn(minute).await.unwrap());
    assert!(!second.is_my_turn(minute).await.unwrap());
    let other = process(&test_link(), LIFE);
    assert!(other.is_my_turn(Duration::from_millis(50)).await.unwrap());
    until("the turn does not come again", || async {
        other.is_my_turn(Duration::from_millis(50)).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn installations_with_other_prefixes_do_not_meet() {
    let (here, there) = (process(&test_link(), LIFE), process(&test_link(), LIFE));
    here.enqueue(&jobs(UserId::new(), 1)).await.unwrap();
    assert_eq!(depth(&there).await, (0, 0));
    assert_eq!(claim(&there, limits(1, 1)).await, None);
}

#[tokio::test]
async fn scripts_that_redis_has_forgotten_are_loaded_again() {
    let redis = OwnRedis::start();
    let queue = process(&link_to(&redis), LIFE);
    let two = jobs(UserId::new(), 2);
    queue.enqueue(&two).await.unwrap();
    for expected in two {
        redis.command("SCRIPT FLUSH");
        assert_eq!(claim(&queue, limits(2, 2)).await, Some(expected.clone()));
        redis.command("SCRIPT FLUSH");
        queue.free(LANE, expected.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_that_lost_its_data_says_so_once() {
    let redis = OwnRedis::start();
    let queue = process(&link_to(&redis), LIFE);
    let three = jobs(UserId::new(), 3);
    queue.enqueue(&three).await.unwrap();
    let running = claim(&queue, limits(1, 1)).await.unwrap();
    assert_eq!(queue.keep().await.unwrap(), Kept::Kept);

    redis.command("FLUSHALL");
    queue.enqueue(&three[1..]).await.unwrap();
    assert_eq!(claim(&queue, limits(1, 1)).await, None, "one runs already");
    assert_eq!(queue.keep().await.unwrap(), Kept::Lost);
    queue.occupy(std::slice::from_ref(&running)).await.unwrap();
    assert_eq!(queue.keep().await.unwrap(), Kept::Kept);
    assert_eq!(depth(&queue).await, (2, 1));
    assert_eq!(claim(&queue, limits(1, 1)).await, None);

    redis.command("FLUSHALL");
    queue.occupy(&[job(UserId::new(), 5)]).await.unwrap();
    assert_eq!(
        queue.keep().await.unwrap(),
        Kept::Lost,
        "an occupied slot does not hide that the others are gone"
    );
    assert_eq!(queue.keep().await.unwrap(), Kept::Kept);
}

#[tokio::test]
async fn a_restart_without_data_is_noticed_too() {
    let mut redis = OwnRedis::start();
    let link = link_to(&redis);
    let queue = process(&link, LIFE);
    queue.enqueue(&jobs(UserId::new(), 1)).await.unwrap();
    claim(&queue, limits(1, 1)).await.unwrap();
    redis.kill();
    until("it did not go away", || async { queue.keep().await.is_err() }).await;
    assert!(queue.claim(LANE, limits(1, 1)).await.is_err());
    assert!(queue.enqueue(&jobs(UserId::new(), 1)).await.is_err());
    redis.start_again();
    until("it did not come back", || async { link.is_up() }).await;
    assert_eq!(queue.keep().await.unwrap(), Kept::Lost);
}

#[tokio::test]
async fn a_lane_that_lost_any_of_its_keys_becomes_whole_again() {
    const KEYS: [&str; 11] = [
        "waiting", "users", "heads", "jobs", "parked", "running", "held", "counts", "ends", "alive", "lane",
    ];
    let redis = OwnRedis::start();
    for key in KEYS {
        redis.command("FLUSHALL");
        let queue = process(&link_to(&redis), LIFE);
        let users: Vec<UserId> = (0..3).map(|_| UserId::new()).collect();
        let mut left: Vec<_> = users.iter().flat_map(|user| jobs(*user, 4)).collect();
        // One job each runs, the others are parked; then one is freed, so that there are heads too.
        queue.enqueue(&left).await.unwrap();
        let mut mine = Vec::new();
        while let Some(job) = claim(&queue, limits(9, 1)).await {
            mine.push(job);
        }
        assert_eq!(mine.len(), 3);
        redis.command(&format!("DEL velro:q1:{{fal}}:{key}"));
        // What happens before it is noticed writes to the key again.
        left.push(job(users[0], 5));
        queue.enqueue(&left).await.unwrap();
        let done = mine.remove(0);
        queue.free(LANE, done.id).await.unwrap();
        left.retain(|job| job.id != done.id);
        mine.extend(claim(&queue, limits(9, 1)).await);
        let mut keeps = 0;
        while !left.is_empty() {
            if keeps < 3 {
                keeps += 1;
                let kept = queue.keep().await.unwrap();
                queue.hold_only(&mine).await.unwrap();
                if kept == Kept::Lost {
                    queue.enqueue(&left).await.unwrap();
                }
                let running = mine.len() as u64;
                assert_eq!(depth(&queue).await, (left.len() as u64 - running, running), "{key}");
            }
            while let Some(job) = claim(&queue, limits(9, 1)).await {
                mine.push(job);
            }
            assert!(!mine.is_empty(), "without {key} {} jobs wait for ever", left.len());
            let done = mine.remove(0);
            queue.free(LANE, done.id).await.unwrap();
            left.retain(|job| job.id != done.id);
        }
        assert_eq!(depth(&queue).await, (0, 0), "{key}");
        assert_eq!(queue.keep().await.unwrap(), Kept::Kept, "{key}");
    }
}

#[tokio::test]
async fn an_evicted_key_costs_a_place_and_not_the_lane() {
    let redis = OwnRedis::start();
    let queue = process(&link_to(&redis), LIFE);
    let two = jobs(UserId::new(), 2);
    queue.enqueue(&two).await.unwrap();
    redis.command("DEL velro:q1:{fal}:jobs");
    assert_eq!(claim(&queue, limits(5, 5)).await, None);
    queue.enqueue(&two).await.unwrap();
    assert!(claim(&queue, limits(5, 5)).await.is_some());
}
