//! A store around a store: one [`Manner`] decides how every call of it is made. [`Prompt`] bounds what a request waits;
//! tests make stores that fail or die.

use async_trait::async_trait;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::*;

/// How the calls of a store are made.
pub trait Manner: Send + Sync + 'static {
    /// Makes `call`, the method of this name, or does not.
    fn make<T: Send>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;
}

/// A store whose calls are made in a manner.
pub struct Wrapped<M> {
    inner: Arc<dyn Store>,
    manner: Arc<M>,
}

impl<M: Manner> Wrapped<M> {
    /// Around `inner`.
    pub fn new(inner: Arc<dyn Store>, manner: Arc<M>) -> Self {
        Wrapped { inner, manner }
    }
}

/// Gives up on a call that takes longer. What it was to change may have changed or not, as with every lost answer.
pub struct Prompt(pub Duration);

impl Manner for Prompt {
    async fn make<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let late = |_| StoreError::Unavailable(anyhow::anyhow!("{method} took longer than {:?}", self.0));
        timeout(self.0, call).await.map_err(late)?
    }
}

/// Writes the whole `impl`. `close` and `connections` are no calls that could fail.
macro_rules! store {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl<M: Manner> Store for Wrapped<M> {
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$out> {
                self.manner.make(stringify!($name), self.inner.$name($($arg),*)).await
            })*
            async fn close(&self) {
                self.inner.close().await
            }
            fn connections(&self) -> Vec<Connections> {
                self.inner.connections()
            }
        }
    };
}

store! {
    ping() -> ();
    now() -> Micros;
    system_counts(too_old: Micros) -> SystemCounts;
    claim_ledger_check(every: Duration, now: Micros) -> bool;
    finish_ledger_check(check: LedgerCheck) -> ();
    log_level() -> Option<LogLevel>;
    set_log_level(set: SetLogLevel) -> ();
    create_user(user: NewUser) -> Created<User>;
    ensure_user(arrival: Arrival) -> User;
    user_by_email(email: &str) -> Option<User>;
    user(id: UserId) -> Option<User>;
    update_profile(id: UserId, change: ProfileChange, now: Micros) -> Option<User>;
    open_session(session: NewSession) -> bool;
    rotate_refresh(rotation: Rotation) -> Rotated;
    revoke_session(session: SessionId, now: Micros) -> ();
    end_foreign_session(session: SessionId, user: UserId, now: Micros) -> ();
    revoked_since(since: Micros) -> Vec<(SessionId, Micros)>;
    sessions(user: UserId, now: Micros) -> Vec<OpenSession>;
    end_sessions(user: UserId, only: Option<SessionId>, except: Option<SessionId>, now: Micros) -> Vec<SessionId>;
    change_password(user: UserId, old_hash: Option<String>, new_hash: String, keep: SessionId, now: Micros) -> Option<Vec<SessionId>>;
    delete_user(user: UserId, now: Micros) -> bool;
    to_erase(after: Option<UserId>, limit: u32) -> Vec<UserId>;
    leftovers(user: UserId, limit: u32) -> Leftovers;
    erase(user: UserId, ended: &[GenerationId]) -> ();
    finish_erasing(user: UserId, left_before: Micros, now: Micros) -> bool;
    create_api_key(key: NewApiKey) -> Created<ApiKey>;
    api_keys(owner: UserId) -> Vec<ApiKey>;
    api_key(owner: UserId, id: ApiKeyId) -> Option<ApiKey>;
    change_api_key(owner: UserId, id: ApiKeyId, change: ApiKeyChange, now: Micros) -> Option<ApiKey>;
    revoke_api_key(owner: UserId, id: ApiKeyId, now: Micros) -> Option<ApiKey>;
    api_key_by_hash(hash: &str) -> Option<KeyHolder>;
    touch_api_keys(uses: &[(ApiKeyId, Micros)]) -> ();
    balance(user: UserId) -> Option<Balance>;
    statement(user: UserId, filter: StatementFilter) -> Page<StatementLine>;
    credit_stats(user: UserId, since: Micros) -> CreditStats;
    grant(grant: Grant) -> Option<Granted>;
    verify_ledger() -> LedgerReport;
    create_order(order: NewOrder) -> OrderMade;
    open_order(checkout: Checkout) -> Option<Order>;
    order(id: OrderId) -> Option<OrderRecord>;
    orders(filter: OrderFilter) -> Vec<Order>;
    settle_order(id: OrderId, by: By) -> Option<(Order, bool)>;
    record_payment(notice: PaymentNotice) -> Recorded;
    expire_orders(made_before: Micros, now: Micros) -> u64;
    create_project(project: NewProject) -> Project;
    project(viewer: UserId, id: ProjectId) -> Option<Project>;
    projects(viewer: UserId, filter: ProjectFilter) -> Vec<Project>;
    update_project(owner: UserId, id: ProjectId, change: ProjectChange, now: Micros) -> Option<Project>;
    delete_project(owner: UserId, id: ProjectId) -> bool;
    submit(new: NewGeneration) -> Submitted;
    generation(owner: UserId, id: GenerationId) -> Option<Generation>;
    generations(owner: UserId, filter: GenerationFilter) -> Page<Generation>;
    generation_stats(owner: UserId, project: Option<ProjectId>) -> GenerationStats;
    toggle_favorite(owner: UserId, id: GenerationId, now: Micros) -> Option<Generation>;
    delete_generation(owner: UserId, id: GenerationId, now: Micros) -> Deleted;
    cancel(owner: UserId, id: GenerationId, now: Micros) -> Option<Cancelled>;
    events(owner: UserId, id: GenerationId, after_seq: i64) -> Vec<Event>;
    queued(after: Option<GenerationId>, limit: u32) -> Vec<QueuedGeneration>;
    begin_attempt(begin: BeginAttempt) -> Option<(Work, Vec<Event>)>;
    work(attempt: AttemptId, worker: &str) -> Option<Work>;
    adopt(worker: &str, now: Micros, lease_until: Micros, limit: u32) -> Vec<Adopted>;
    held(worker: &str) -> Vec<AttemptId>;
    extend_leases(worker: &str, lease_until: Micros) -> u64;
    release_leases(worker: &str, keep: &[AttemptId]) -> u64;
    living_workers(now: Micros) -> u32;
    free_all_leases() -> u64;
    save_step(step: SaveStep) -> Saved;
    next_attempt(next: NextAttempt) -> Option<Work>;
    reroute(reroute: Reroute) -> Rerouted;
    settle(settle: Settle) -> Settled;
    deliver_webhook(provider: &str, attempt: AttemptId, body: Vec<u8>, now: Micros) -> Delivered;
    attempts_in(state: AttemptState, limit: u32) -> Vec<(Attempt, Generation)>;
    newest_attempt(id: GenerationId) -> Option<(Attempt, Generation)>;
    resolve_unknown(resolution: Resolve) -> Resolved;
    people(filter: UserFilter) -> Listed<Person>;
    change_user(change: ChangeUser) -> UserChanged;
    correct(correct: Correct) -> Corrected;
    refund(refund: Refund) -> Refunded;
    cases(filter: CaseFilter) -> Listed<Case>;
    case(id: GenerationId) -> Option<CaseFile>;
    search(search: Search, after: Option<GenerationId>, limit: u32) -> Listed<Case>;
    audit(filter: AuditFilter) -> Listed<AuditEntry>;
    pauses() -> Vec<Pause>;
    set_pause(set: SetPause) -> Mode;
    create_code(new: NewCode) -> Created<RedeemCode>;
    codes(after: Option<RedeemCodeId>, limit: u32) -> Listed<RedeemCode>;
    code(id: RedeemCodeId) -> Option<(RedeemCode, Vec<Redemption>)>;
    disable_code(id: RedeemCodeId, by: By) -> Option<(RedeemCode, bool)>;
    redeem(redeem: Redeem) -> Redeemed;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_given_up() {
        let prompt = Prompt(Duration::from_millis(20));
        assert!(matches!(prompt.make("user", async { Ok(7) }).await, Ok(7)));
        let error = prompt.make("user", pending::<Result<()>>()).await.unwrap_err();
        let StoreError::Unavailable(why) = error else {
            panic!("{error}")
        };
        assert_eq!(why.to_string(), "user took longer than 20ms");
    }
}
