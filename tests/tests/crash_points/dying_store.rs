//! A store that dies at the n-th call of the worker: before it is carried out, or after, when nobody hears the answer.

use async_trait::async_trait;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::sync::Notify;

use velro::clock::Micros;
use velro::generation::{Attempt, AttemptState, Event, Generation};
use velro::id::{AttemptId, GenerationId, ProjectId, SessionId, UserId};
use velro::ledger::Balance;
use velro::store::*;

/// Where in a call the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// See the module.
pub(crate) struct DyingStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) die_at: u32,
    pub(crate) when: When,
    pub(crate) calls: AtomicU32,
    /// Told once, when the process is dead.
    pub(crate) died: Notify,
}

impl DyingStore {
    /// Counts a call; the one it dies at, and all later ones, never return.
    async fn point(&self, when: When) {
        let call = match when {
            When::Before => self.calls.fetch_add(1, SeqCst) + 1,
            When::After => self.calls.load(SeqCst),
        };
        if call > self.die_at || (call == self.die_at && self.when == when) {
            self.died.notify_one();
            pending::<()>().await;
        }
    }
}

/// Writes the whole `impl`: calls of the worker pass the points, the others go straight through.
macro_rules! store {
    (worker { $($wname:ident($wself:ident $(, $warg:ident: [$($wty:tt)*])*) -> $wout:ty;)* }
     others { $($name:ident($self:ident $(, $arg:ident: [$($ty:tt)*])*) -> $out:ty;)* }) => {
        #[async_trait]
        impl Store for DyingStore {
            $(async fn $wname(&$wself $(, $warg: $($wty)*)*) -> Result<$wout> {
                $wself.point(When::Before).await;
                let answer = $wself.inner.$wname($($warg),*).await;
                $wself.point(When::After).await;
                answer
            })*
            $(async fn $name(&$self $(, $arg: $($ty)*)*) -> Result<$out> {
                $self.inner.$name($($arg),*).await
            })*
            async fn close(&self) {
                self.inner.close().await
            }
        }
    };
}

store! {
    worker {
        begin_attempt(self, begin: [BeginAttempt]) -> Option<(Work, Vec<Event>)>;
        work(self, attempt: [AttemptId], worker: [&str]) -> Option<Work>;
        save_step(self, step: [SaveStep]) -> Saved;
        next_attempt(self, next: [NextAttempt]) -> Option<Work>;
        settle(self, settle: [Settle]) -> Settled;
    }
    others {
        ping(self) -> ();
        create_user(self, user: [NewUser]) -> Created<User>;
        user_by_email(self, email: [&str]) -> Option<User>;
        user(self, id: [UserId]) -> Option<User>;
        update_profile(self, id: [UserId], change: [ProfileChange], now: [Micros]) -> Option<User>;
        set_role(self, email: [&str], role: [Role], now: [Micros]) -> Option<User>;
        open_session(self, session: [NewSession]) -> ();
        rotate_refresh(self, rotation: [Rotation]) -> Rotated;
        revoke_session(self, session: [SessionId], now: [Micros]) -> ();
        revoked_since(self, since: [Micros]) -> Vec<(SessionId, Micros)>;
        balance(self, user: [UserId]) -> Option<Balance>;
        statement(self, user: [UserId], filter: [StatementFilter]) -> Page<StatementLine>;
        credit_stats(self, user: [UserId], since: [Micros]) -> CreditStats;
        grant(self, grant: [Grant]) -> Option<Granted>;
        verify_ledger(self) -> LedgerReport;
        create_project(self, project: [NewProject]) -> Project;
        project(self, viewer: [UserId], id: [ProjectId]) -> Option<Project>;
        projects(self, viewer: [UserId], filter: [ProjectFilter]) -> Vec<Project>;
        update_project(self, owner: [UserId], id: [ProjectId], change: [ProjectChange], now: [Micros]) -> Option<Project>;
        delete_project(self, owner: [UserId], id: [ProjectId]) -> bool;
        submit(self, new: [NewGeneration]) -> Submitted;
        generation(self, owner: [UserId], id: [GenerationId]) -> Option<Generation>;
        generations(self, owner: [UserId], filter: [GenerationFilter]) -> Page<Generation>;
        generation_stats(self, owner: [UserId], project: [Option<ProjectId>]) -> GenerationStats;
        toggle_favorite(self, owner: [UserId], id: [GenerationId], now: [Micros]) -> Option<Generation>;
        delete_generation(self, owner: [UserId], id: [GenerationId], now: [Micros]) -> Deleted;
        cancel(self, owner: [UserId], id: [GenerationId], now: [Micros]) -> Option<Cancelled>;
        events(self, owner: [UserId], id: [GenerationId], after_seq: [i64]) -> Vec<Event>;
        system_counts(self) -> SystemCounts;
        queued(self, after: [Option<GenerationId>], limit: [u32]) -> Vec<QueuedGeneration>;
        adopt(self, worker: [&str], now: [Micros], lease_until: [Micros], limit: [u32]) -> Vec<Adopted>;
        held(self, worker: [&str]) -> Vec<AttemptId>;
        extend_leases(self, worker: [&str], lease_until: [Micros]) -> u64;
        release_leases(self, worker: [&str]) -> u64;
        living_workers(self, now: [Micros]) -> u32;
        free_all_leases(self) -> u64;
        deliver_webhook(self, provider: [&str], attempt: [AttemptId], body: [Vec<u8>], now: [Micros]) -> Delivered;
        attempts_in(self, state: [AttemptState], limit: [u32]) -> Vec<(Attempt, Generation)>;
        newest_attempt(self, id: [GenerationId]) -> Option<(Attempt, Generation)>;
        resolve_unknown(self, resolution: [Resolve]) -> Resolved;
    }
}
