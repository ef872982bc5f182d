//! The conformance suite of [`velro::store::Store`]: what every store must do, whatever database is beneath.
//!
//! A case is a function over a [`Stage`]; `store_suite!` turns all of them into tests for one kind of store. Every case
//! ends with [`fixtures::in_order`]: the books are verified and not a credit is unaccounted for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a suite is test code; what is unexpected must fail the test"
)]

pub mod attempts;
pub mod care;
pub mod cases;
pub mod codes;
pub mod credits;
pub mod damage;
pub mod desk;
pub mod fixtures;
pub mod generations;
pub mod keys;
pub mod migrations;
pub mod model;
pub mod operations;
pub mod payments;
pub mod people;
pub mod projects;
pub mod races;
pub mod reroute;
pub mod resolve;
pub mod settle;
pub mod submit;

use async_trait::async_trait;
use std::sync::Arc;
use velro::store::Store;

/// A database of a test's own.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Opens the store; empty the first time, with what was committed before on later calls.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Makes a test of every case. `$stage` is an expression that makes a fresh [`Stage`].
#[macro_export]
macro_rules! store_suite {
    ($stage:expr) => {
        $crate::store_suite! { @cases $stage;
            operations::it_has_a_clock,
            operations::one_of_many_checks_the_books,
            operations::a_log_level_is_set_for_a_while,
            people::a_person_is_created_once_with_start_credits,
            people::a_profile_changes_where_it_is_told_to,
            people::roles_are_given,
            people::a_session_lives_until_it_is_revoked,
            people::a_refresh_token_is_exchanged_once,
            people::dead_refresh_tokens_are_invalid,
            people::somebody_of_elsewhere_arrives_once_and_is_followed,
            people::an_address_goes_to_its_newest_owner,
            people::a_session_of_elsewhere_is_ended_once,
            credits::grants_are_booked_once_per_key,
            credits::statements_are_filtered_and_paged,
            credits::stats_count_what_happened_in_the_period,
            credits::strangers_have_no_account,
            care::sessions_are_listed_and_ended_by_their_owner,
            care::another_password_ends_the_other_sessions,
            care::whoever_leaves_leaves_only_the_books,
            keys::keys_are_their_owners,
            keys::a_key_changes_where_it_is_told_to,
            keys::a_cap_counts_what_is_held_and_captured,
            keys::an_ended_key_spends_nothing,
            keys::parallel_submits_never_pass_a_cap,
            payments::an_order_is_made_once_per_key,
            payments::orders_are_opened_listed_and_ended,
            payments::a_payment_is_booked_once,
            payments::a_payment_may_be_faster_than_our_own_note,
            payments::no_word_undoes_a_payment,
            payments::what_does_not_fit_books_nothing,
            payments::a_spent_purchase_that_goes_back_becomes_a_debt,
            payments::money_in_another_currency_is_an_operator_s,
            payments::a_payment_and_its_refund_at_once_are_both_booked,
            payments::words_in_every_order_end_alike,
            payments::words_said_again_and_again_end_alike,
            projects::the_owner_does_what_strangers_cannot,
            projects::lists_follow_visibility,
            projects::generations_outlive_their_project,
            submit::a_submit_holds_stores_and_tells,
            submit::what_is_stored_comes_back_unchanged,
            submit::refused_submits_change_nothing,
            submit::an_idempotency_key_makes_one_generation,
            submit::equal_keys_in_one_moment_make_one_generation,
            submit::free_generations_move_nothing,
            submit::one_bad_request_does_not_sink_its_neighbours,
            generations::lists_are_newest_first_with_totals,
            generations::stats_count_what_the_owner_sees,
            generations::favorites_flip,
            generations::only_terminal_generations_are_hidden,
            generations::events_resume_after_a_number,
            generations::the_queue_can_be_rebuilt_in_order,
            generations::the_operator_sees_counts,
            attempts::an_attempt_begins_once,
            attempts::steps_are_guarded_by_lease_and_count,
            attempts::an_unsent_attempt_gets_its_time_anew,
            attempts::a_step_stores_what_it_says,
            attempts::leases_run_out_and_are_taken_over,
            attempts::released_leases_are_free_at_once,
            attempts::a_heartbeat_keeps_every_attempt,
            attempts::living_workers_are_those_with_a_lease,
            attempts::unknown_attempts_wait_for_their_inbox,
            attempts::the_next_attempt_replaces_a_rejected_one,
            attempts::webhooks_wake_and_are_kept_until_stepped,
            attempts::the_operator_finds_attempts,
            settle::a_full_delivery_is_captured_in_full,
            settle::a_partial_delivery_releases_the_rest,
            settle::never_more_than_the_hold_is_captured,
            settle::a_failure_gives_everything_back,
            settle::a_cancelled_attempt_gives_everything_back,
            settle::a_nul_of_a_provider_stops_nothing,
            settle::only_the_holder_of_the_lease_settles,
            settle::what_is_over_stays_over,
            reroute::a_refused_generation_goes_from_provider_to_provider,
            reroute::a_job_that_failed_goes_to_the_next_provider,
            reroute::what_may_have_been_bought_goes_nowhere,
            reroute::only_the_holder_of_the_lease_reroutes_and_once,
            reroute::a_cancel_ends_what_waits_for_the_next_provider,
            reroute::what_should_stop_goes_to_no_other_provider,
            reroute::reroute_cancel_and_settle_have_one_winner,
            resolve::queued_and_prepared_work_is_cancelled_at_once,
            resolve::what_was_sent_is_only_asked_to_stop,
            resolve::a_cancel_is_idempotent_and_private,
            resolve::an_unknown_attempt_can_be_refunded,
            resolve::an_unknown_attempt_can_be_tried_again,
            resolve::a_retry_of_what_should_stop_is_a_cancel,
            resolve::an_unknown_attempt_can_be_delivered,
            resolve::only_unknown_attempts_are_resolved,
            desk::the_last_operator_stays_one,
            desk::a_suspended_person_spends_nothing_until_it_is_taken_back,
            desk::people_are_found_page_by_page,
            desk::a_correction_takes_what_is_there_and_no_more,
            desk::corrections_at_once_never_overdraw,
            desk::a_charge_is_given_back_in_parts_and_never_more_than_it_was,
            desk::refunds_at_once_give_back_once,
            cases::what_is_held_too_long_is_ended_and_its_worker_loses,
            cases::ending_by_hand_and_settling_have_one_winner,
            cases::cases_are_found_across_users,
            cases::what_needs_a_hand_is_found,
            desk::the_audit_is_read_by_who_what_and_when,
            desk::pauses_are_kept_with_who_and_why,
            codes::a_code_gives_what_it_says_as_often_as_it_says,
            codes::a_code_that_is_over_gives_nothing,
            codes::fifty_people_at_once_use_a_code_once,
            codes::one_person_fifty_times_at_once_uses_a_code_once,
            races::parallel_submits_spend_to_the_last_credit,
            races::cancel_and_settle_have_one_winner,
            races::a_refresh_token_used_twice_at_once_is_caught,
            races::a_grant_at_once_is_given_once,
            races::an_email_is_taken_once,
            races::an_arrival_at_once_makes_one_account,
            races::a_generation_begins_once,
            races::a_settlement_is_won_once,
            races::an_abandoned_call_leaves_no_half_state,
            races::a_dropped_store_keeps_what_it_answered,
            races::a_closed_store_refuses,
        }

        #[test]
        fn random_histories_agree_with_a_naive_model() {
            $crate::store_suite::model::random_histories_agree_with_a_naive_model(|| Box::new($stage));
        }
    };
    (@cases $stage:expr; $($module:ident :: $case:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::store_suite::$module::$case(&$stage).await;
        }
    )+};
}
