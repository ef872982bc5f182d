//! The conformance suite of [`velro::queue::Queue`]: what every queue must do, wherever it is kept.
//!
//! A case is a function over a fresh queue; `queue_suite!` turns all of them into tests for one kind. What takes two
//! processes over one queue is tested with the queue that knows processes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a suite is test code; what is unexpected must fail the test"
)]

pub mod fairness;
pub mod model;
pub mod slots;

use velro::id::{GenerationId, UserId};
use velro::queue::{Job, LaneLimits, Queue};

/// The lane of most cases.
pub const LANE: &str = "fal";

/// A job of a user in [`LANE`].
pub fn job(user_id: UserId, cost: u64) -> Job {
    Job {
        id: GenerationId::new(),
        user_id,
        provider: LANE.into(),
        cost,
    }
}

/// So many jobs of a user.
pub fn jobs(user_id: UserId, count: usize) -> Vec<Job> {
    (0..count).map(|_| job(user_id, 5)).collect()
}

/// Limits of a lane.
pub fn limits(concurrency: u32, per_user: u32) -> LaneLimits {
    LaneLimits { concurrency, per_user }
}

/// The next job of [`LANE`].
pub async fn claim(queue: &dyn Queue, limits: LaneLimits) -> Option<Job> {
    queue.claim(LANE, limits).await.unwrap()
}

/// Waiting and running jobs of [`LANE`].
pub async fn depth(queue: &dyn Queue) -> (u64, u64) {
    let depth = queue.depth(LANE).await.unwrap();
    (depth.waiting, depth.running)
}

/// Makes a test of every case. `$queue` is an expression that makes a fresh queue, and may await.
#[macro_export]
macro_rules! queue_suite {
    ($queue:expr) => {
        $crate::queue_suite! { @cases $queue;
            fairness::a_thousand_jobs_do_not_starve_the_other_users,
            fairness::a_user_who_pays_more_waits_longer,
            fairness::equal_starts_go_by_age,
            fairness::lanes_do_not_disturb_each_other,
            fairness::positions_are_ranks_over_all_users,
            fairness::an_empty_lane_answers,
            slots::limits_hold_and_a_full_user_is_passed_over,
            slots::a_job_is_enqueued_once,
            slots::what_runs_already_may_exceed_the_limits,
            slots::a_job_that_waits_can_be_occupied,
            slots::raised_limits_bring_parked_users_back,
            slots::a_parked_user_comes_back_with_a_free_slot,
            slots::only_a_held_slot_is_freed,
            slots::removed_jobs_leave_nothing_behind,
            slots::only_what_is_held_keeps_its_slot,
            slots::leaving_frees_every_slot,
            slots::a_change_wakes_who_waits,
        }

        #[test]
        fn behaves_like_a_plain_sorted_list() {
            $crate::queue_suite::model::behaves_like_a_plain_sorted_list(async || $queue);
        }
    };
    (@cases $queue:expr; $($module:ident :: $case:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::queue_suite::$module::$case(&*$queue).await;
        }
    )+};
}
