//! The port to the database: use cases with their transaction inside.
//!
//! The database is the truth. Every method is one durable transaction (or one read); a method that returns has
//! committed. Methods that write return the [`Event`]s they stored, so that the caller can publish them to live
//! watchers after the commit, never before. Implementations group concurrent writes into shared transactions; a lone
//! write waits for nobody.
//!
//! Another user's row is `None`, exactly as a missing one.

mod types;

pub mod sql;
pub mod wrapped;

pub use types::*;

use async_trait::async_trait;
use std::time::Duration;

use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, Generation};
use crate::id::{ApiKeyId, AttemptId, GenerationId, OrderId, ProjectId, RedeemCodeId, SessionId, UserId};
use crate::ledger::Balance;
use crate::pause::{Mode, Pause};
use crate::purchase::Order;

/// Why the store could not answer. Refusals that belong to a use case are in its own result type.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or is overloaded; nothing was changed, or it is not known whether it was.
    #[error("the database is not available")]
    Unavailable(#[source] anyhow::Error),
    /// The database refused or answered what cannot be: a bug or a damaged file.
    #[error("the database failed")]
    Broken(#[source] anyhow::Error),
    /// The schema is not the one this program knows.
    #[error("{0}")]
    Schema(String),
}

/// What every store method returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// All use cases. Grouped: operations, people, credits, purchases, projects, generations as the customer sees them, attempts as
/// the worker sees them.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- operations

    /// Answers when the database can be read and its schema is the known one.
    async fn ping(&self) -> Result<()>;
    /// The database's clock, which all processes follow; see [`crate::clock`]. The embedded database has the machine's.
    async fn now(&self) -> Result<Micros>;
    /// Finishes what is queued and closes. Later calls fail.
    async fn close(&self);
    /// Counts for the operator; a generation submitted before `too_old` and not ended counts as open for too long.
    async fn system_counts(&self, too_old: Micros) -> Result<SystemCounts>;
    /// The pools of this process.
    fn connections(&self) -> Vec<Connections>;
    /// True for the one process that is to recompute the books now: nobody has begun to for `every`.
    async fn claim_ledger_check(&self, every: Duration, now: Micros) -> Result<bool>;
    /// Stores what a check found, for the metrics of every process.
    async fn finish_ledger_check(&self, check: LedgerCheck) -> Result<()>;
    /// The filter of the logs that an operator asked for last; it may be over.
    async fn log_level(&self) -> Result<Option<LogLevel>>;
    /// Sets it, with an audit entry.
    async fn set_log_level(&self, set: SetLogLevel) -> Result<()>;

    // ---- people and sessions

    /// Creates the person, the account and, when `start_credits > 0`, the one bonus transfer, together.
    async fn create_user(&self, user: NewUser) -> Result<Created<User>>;
    /// The row of somebody whose account is kept elsewhere: made with an account and the one bonus transfer when it is not
    /// there, whoever else makes it at the same moment; brought up to date when the proof is fresh. An e-mail that another
    /// row still has goes to the newcomer.
    async fn ensure_user(&self, arrival: Arrival) -> Result<User>;
    /// By lower-case e-mail.
    async fn user_by_email(&self, email: &str) -> Result<Option<User>>;
    /// By id.
    async fn user(&self, id: UserId) -> Result<Option<User>>;
    /// Changes what is `Some`; `None` when there is no such user.
    async fn update_profile(&self, id: UserId, change: ProfileChange, now: Micros) -> Result<Option<User>>;
    /// Opens a session with its first refresh token and notes the sign-in. False, and nothing is opened, when the person has
    /// left or has got another password since it was proved.
    async fn open_session(&self, session: NewSession) -> Result<bool>;
    /// Exchanges a refresh token for the next one, once. A second use revokes the whole session.
    async fn rotate_refresh(&self, rotation: Rotation) -> Result<Rotated>;
    /// Ends a session; its refresh tokens are dead, its access tokens are refused through [`Store::revoked_since`].
    async fn revoke_session(&self, session: SessionId, now: Micros) -> Result<()>;
    /// The same for a session that another service opened, of which nothing needs to be stored yet.
    async fn end_foreign_session(&self, session: SessionId, user: UserId, now: Micros) -> Result<()>;
    /// Sessions, API keys and people (as a session with their id) that ended at or after `since`, each with the moment: what
    /// a token check needs to know at start.
    async fn revoked_since(&self, since: Micros) -> Result<Vec<(SessionId, Micros)>>;

    /// The person's sessions that go on, the one used last first.
    async fn sessions(&self, user: UserId, now: Micros) -> Result<Vec<OpenSession>>;
    /// Ends sessions of the person: `only` one, or all `except` one; answers which were ended now.
    async fn end_sessions(
        &self,
        user: UserId,
        only: Option<SessionId>,
        except: Option<SessionId>,
        now: Micros,
    ) -> Result<Vec<SessionId>>;
    /// Sets another password and ends every session but `keep`; answers which were ended. `None`, and nothing is changed,
    /// when the password is not `old_hash` any more.
    async fn change_password(
        &self,
        user: UserId,
        old_hash: Option<String>,
        new_hash: String,
        keep: SessionId,
        now: Micros,
    ) -> Result<Option<Vec<SessionId>>>;
    /// Makes the account nobody's: the e-mail is free, sessions and keys are over, credits stay in the books. False when it
    /// was done before.
    async fn delete_user(&self, user: UserId, now: Micros) -> Result<bool>;
    /// People who have left and of whom something may be left, in the order of their ids, behind `after`.
    async fn to_erase(&self, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>>;
    /// Up to `limit` generations of each kind of somebody who has left; nothing of anybody else.
    async fn leftovers(&self, user: UserId, limit: u32) -> Result<Leftovers>;
    /// Erases what generations of somebody who has left were about. What they cost stays in the books.
    async fn erase(&self, user: UserId, ended: &[GenerationId]) -> Result<()>;
    /// Removes the projects of somebody who left before `left_before` and notes that nothing is left of them. False while
    /// something is.
    async fn finish_erasing(&self, user: UserId, left_before: Micros, now: Micros) -> Result<bool>;

    // ---- API keys

    /// Stores a key; `Taken` when its owner has as many as allowed already.
    async fn create_api_key(&self, key: NewApiKey) -> Result<Created<ApiKey>>;
    /// The owner's keys, revoked ones too, newest first.
    async fn api_keys(&self, owner: UserId) -> Result<Vec<ApiKey>>;
    /// The owner's.
    async fn api_key(&self, owner: UserId, id: ApiKeyId) -> Result<Option<ApiKey>>;
    /// Changes what is `Some`; `None` when it is not the owner's or is revoked.
    async fn change_api_key(
        &self,
        owner: UserId,
        id: ApiKeyId,
        change: ApiKeyChange,
        now: Micros,
    ) -> Result<Option<ApiKey>>;
    /// Ends a key for good. Idempotent; [`Store::revoked_since`] tells the other processes.
    async fn revoke_api_key(&self, owner: UserId, id: ApiKeyId, now: Micros) -> Result<Option<ApiKey>>;
    /// By the SHA-256 of the key, whatever has become of it; `None` also when its owner has left.
    async fn api_key_by_hash(&self, hash: &str) -> Result<Option<KeyHolder>>;
    /// Notes when keys were last used; an older moment changes nothing.
    async fn touch_api_keys(&self, uses: &[(ApiKeyId, Micros)]) -> Result<()>;

    // ---- credits

    /// `None` when there is no such account.
    async fn balance(&self, user: UserId) -> Result<Option<Balance>>;
    /// Newest first, with the total that matches the filter.
    async fn statement(&self, user: UserId, filter: StatementFilter) -> Result<Page<StatementLine>>;
    /// Sums over the statement since a moment.
    async fn credit_stats(&self, user: UserId, since: Micros) -> Result<CreditStats>;
    /// Gives credits from the platform's grants; the same `idempotency_key` gives once. `None`: no such user.
    async fn grant(&self, grant: Grant) -> Result<Option<Granted>>;
    /// Recomputes every balance, hold, statement and settlement from the rows beneath.
    async fn verify_ledger(&self) -> Result<LedgerReport>;

    // ---- purchases

    /// Stores an order, once for each idempotency key of its buyer.
    async fn create_order(&self, order: NewOrder) -> Result<OrderMade>;
    /// Notes where an order can be paid; it becomes `open` unless it is further already. `None`: no such order.
    async fn open_order(&self, checkout: Checkout) -> Result<Option<Order>>;
    /// Any order with what was said about it, for the operator and for who keeps the owner's from others.
    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>>;
    /// Newest first.
    async fn orders(&self, filter: OrderFilter) -> Result<Vec<Order>>;
    /// Takes note, with an audit row, that an operator has looked after an order in trouble; answers whether there was any.
    async fn settle_order(&self, id: OrderId, by: By) -> Result<Option<(Order, bool)>>;
    /// Books what the payment provider says: an order's state, its credits, what goes back of them, and that this event was
    /// counted, all or nothing. Saying it again changes nothing, and the order in which things are said does not matter.
    async fn record_payment(&self, notice: PaymentNotice) -> Result<Recorded>;
    /// Ends orders that were made before `made_before` and that no payment provider ever heard of, and those of the sandbox
    /// whose time is over; answers how many.
    async fn expire_orders(&self, made_before: Micros, now: Micros) -> Result<u64>;

    // ---- projects

    /// Stores a project.
    async fn create_project(&self, project: NewProject) -> Result<Project>;
    /// The owner's, or anybody's public one.
    async fn project(&self, viewer: UserId, id: ProjectId) -> Result<Option<Project>>;
    /// `updated_at` descending.
    async fn projects(&self, viewer: UserId, filter: ProjectFilter) -> Result<Vec<Project>>;
    /// Owner only; `None` for anybody else.
    async fn update_project(
        &self,
        owner: UserId,
        id: ProjectId,
        change: ProjectChange,
        now: Micros,
    ) -> Result<Option<Project>>;
    /// Owner only. Generations stay, without a project. False when there was none.
    async fn delete_project(&self, owner: UserId, id: ProjectId) -> Result<bool>;

    // ---- generations, as the customer sees them

    /// Places the hold and stores generation, statement line, idempotency key and `queued` event, all or nothing.
    /// Concurrent calls share one transaction and spend in arrival order.
    async fn submit(&self, new: NewGeneration) -> Result<Submitted>;
    /// The owner's.
    async fn generation(&self, owner: UserId, id: GenerationId) -> Result<Option<Generation>>;
    /// Newest first, with the total that matches.
    async fn generations(&self, owner: UserId, filter: GenerationFilter) -> Result<Page<Generation>>;
    /// Counts and sums over the owner's generations.
    async fn generation_stats(&self, owner: UserId, project: Option<ProjectId>) -> Result<GenerationStats>;
    /// Flips the mark.
    async fn toggle_favorite(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Generation>>;
    /// Hides a terminal generation and answers the keys of its files; the ledger keeps everything.
    async fn delete_generation(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Deleted>;
    /// Cancels at once what was never sent (queued, or an attempt still `prepared`); otherwise notes the wish for the
    /// worker. Idempotent.
    async fn cancel(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Cancelled>>;
    /// Events of the owner's generation after `after_seq`, oldest first.
    async fn events(&self, owner: UserId, id: GenerationId, after_seq: i64) -> Result<Vec<Event>>;

    // ---- attempts, as the worker sees them

    /// Generations that wait in the queue, oldest first, after `after` (exclusive); to rebuild a queue that was lost.
    async fn queued(&self, after: Option<GenerationId>, limit: u32) -> Result<Vec<QueuedGeneration>>;
    /// `queued` becomes `processing` with a first attempt under a lease; stores the `processing` event.
    /// `None` when the generation is not queued any more.
    async fn begin_attempt(&self, begin: BeginAttempt) -> Result<Option<(Work, Vec<Event>)>>;
    /// The attempt with its generation, if `worker` holds its lease and it is not over.
    async fn work(&self, attempt: AttemptId, worker: &str) -> Result<Option<Work>>;
    /// Takes over up to `limit` unfinished attempts whose lease has run out (or was never taken), `unknown` ones only
    /// with something in their inbox.
    async fn adopt(&self, worker: &str, now: Micros, lease_until: Micros, limit: u32) -> Result<Vec<Adopted>>;
    /// Every unfinished attempt whose lease `worker` holds, for a worker that may not have heard of all of them.
    async fn held(&self, worker: &str) -> Result<Vec<AttemptId>>;
    /// Extends every lease `worker` holds; answers how many.
    async fn extend_leases(&self, worker: &str, lease_until: Micros) -> Result<u64>;
    /// Gives back what `worker` holds, but for `keep`, so that another may resume at once.
    async fn release_leases(&self, worker: &str, keep: &[AttemptId]) -> Result<u64>;
    /// Workers with a lease that has not run out; one that holds no attempt may be missing.
    async fn living_workers(&self, now: Micros) -> Result<u32>;
    /// Gives back every lease of every worker. Only for a process that knows it is alone, such as the one that holds the
    /// lock of an embedded installation: then whoever held them is dead.
    async fn free_all_leases(&self) -> Result<u64>;
    /// Stores a step before it is carried out. Refused when the lease or the step count is not what the caller
    /// thinks: then somebody else goes on, and the caller must drop the attempt.
    async fn save_step(&self, step: SaveStep) -> Result<Saved>;
    /// Ends this attempt as `rejected` (nothing was bought) and prepares the next one under the same lease.
    async fn next_attempt(&self, next: NextAttempt) -> Result<Option<Work>>;
    /// Ends this attempt, and its generation waits in the queue for the next of its fallbacks; the hold stays. A
    /// generation that its owner wants stopped ends as cancelled instead.
    async fn reroute(&self, reroute: Reroute) -> Result<Rerouted>;
    /// Ends the generation: status, settlement, transfers, statement, event and attempt, all or nothing; exactly one
    /// call wins for a generation.
    async fn settle(&self, settle: Settle) -> Result<Settled>;
    /// Stores a verified webhook in the inbox of the attempt and makes it due; for the worker to step.
    async fn deliver_webhook(
        &self,
        provider: &str,
        attempt: AttemptId,
        body: Vec<u8>,
        now: Micros,
    ) -> Result<Delivered>;
    /// Attempts in a state, oldest first, for the operator.
    async fn attempts_in(&self, state: AttemptState, limit: u32) -> Result<Vec<(Attempt, Generation)>>;
    /// Any attempt with its generation, for the operator; the newest of the generation.
    async fn newest_attempt(&self, id: GenerationId) -> Result<Option<(Attempt, Generation)>>;
    /// Carries out an operator's word on an `unknown` attempt, once, with an audit row.
    async fn resolve_unknown(&self, resolution: Resolve) -> Result<Resolved>;

    // ---- the operator's desk; every change with its audit entry in the same transaction

    /// People with their accounts, newest first.
    async fn people(&self, filter: UserFilter) -> Result<Listed<Person>>;
    /// Gives a role, suspends or takes that back. The last one who may operate stays one.
    async fn change_user(&self, change: ChangeUser) -> Result<UserChanged>;
    /// Gives credits, or sets a grant right in either direction; never below what can be spent.
    async fn correct(&self, correct: Correct) -> Result<Corrected>;
    /// Gives back what was charged for a generation, in whole or in part, and never more than that.
    async fn refund(&self, refund: Refund) -> Result<Refunded>;
    /// Generations of all users, newest first.
    async fn cases(&self, filter: CaseFilter) -> Result<Listed<Case>>;
    /// All that is known of one.
    async fn case(&self, id: GenerationId) -> Result<Option<CaseFile>>;
    /// Generations that may need a hand after `after` (exclusive), oldest first.
    async fn search(&self, search: Search, after: Option<GenerationId>, limit: u32) -> Result<Listed<Case>>;
    /// What operators did, newest first.
    async fn audit(&self, filter: AuditFilter) -> Result<Listed<AuditEntry>>;
    /// What operators said of every scope last.
    async fn pauses(&self) -> Result<Vec<Pause>>;
    /// Stops a scope or lets it run; answers what it did before.
    async fn set_pause(&self, set: SetPause) -> Result<Mode>;

    // ---- redeem codes

    /// Stores a code, unless there is the same already.
    async fn create_code(&self, new: NewCode) -> Result<Created<RedeemCode>>;
    /// After `after` (exclusive), newest first.
    async fn codes(&self, after: Option<RedeemCodeId>, limit: u32) -> Result<Listed<RedeemCode>>;
    /// One with its newest hundred uses.
    async fn code(&self, id: RedeemCodeId) -> Result<Option<(RedeemCode, Vec<Redemption>)>>;
    /// Ends a code; the answer says whether this call did it.
    async fn disable_code(&self, id: RedeemCodeId, by: By) -> Result<Option<(RedeemCode, bool)>>;
    /// Uses a code: as often as it may be used in all and by this user, whoever comes at the same moment.
    async fn redeem(&self, redeem: Redeem) -> Result<Redeemed>;
}
