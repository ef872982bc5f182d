//! The store over SQL: one implementation of every use case, for SQLite and for PostgreSQL.
//!
//! Every change goes through [`lanes`], which group concurrent ones into shared transactions; reads run beside them on
//! their own connections and see what is committed. The rules of money are in [`books`] and [`settle`], and nowhere
//! else. Commits are durable in both (`synchronous=FULL`, `synchronous_commit=on`): grouped, that costs almost nothing.
//!
//! **Locks.** SQLite has one writer. In PostgreSQL a transaction locks generations first, then attempts, leases and
//! accounts, each in the order of their ids, so that no two wait for each other. What is said about a payment locks the
//! payment (an advisory lock), then its order, then the account; it touches no generation.

mod attempts;
mod audit;
mod books;
mod bulk;
mod care;
mod cases;
mod codes;
mod conn;
mod copy;
mod credits;
mod desk;
mod elsewhere;
mod error;
mod events;
mod generations;
mod keys;
mod lanes;
mod leases;
mod neighbours;
mod operations;
mod orders;
mod pauses;
mod payments;
mod people;
mod postgres;
mod projects;
mod reading;
mod reroute;
mod resolve;
mod rows;
mod schema;
mod session;
mod settle;
mod sqlite;
mod steps;
mod submit;
mod verify;
mod writer;

pub use self::copy::{Copied, CopiedTable, CopyStage, copy};
pub use self::sqlite::embedded_file;

use async_trait::async_trait;
use std::time::Duration;

use self::conn::{Dialect, args, sql};
use self::error::Fault;
use self::lanes::Lanes;
use self::reading::{Readers, Reading};
use self::session::Source;
use super::*;
use crate::clock::{self, Micros};
use crate::generation::{Attempt, AttemptState, Event, Generation};
use crate::id::{ApiKeyId, AttemptId, GenerationId, OrderId, ProjectId, RedeemCodeId, SessionId, UserId};
use crate::ledger::Balance;
use crate::pause::{Mode, Pause};
use crate::purchase::Order;

/// How to open a database.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Make the SQLite file and its folder when there is none, or the schema of an empty PostgreSQL database.
    pub create: bool,
    /// Bring the schema up to date.
    pub migrate: bool,
}

/// The store over SQLite or PostgreSQL.
pub struct SqlStore {
    lanes: Lanes,
    readers: Readers,
}

impl SqlStore {
    /// Opens the database at `location`: a `postgres:` or `postgresql:` URL, a `sqlite:` URL, or the path of an SQLite file.
    ///
    /// # Errors
    ///
    /// [`super::StoreError::Schema`] names the remedy when there is no database, or its schema is older, newer or other than
    /// this program can work with (an older one is brought up to date when `options.migrate` asks for it);
    /// [`super::StoreError::Unavailable`] when the server does not answer.
    pub async fn open(location: &str, options: OpenOptions) -> Result<SqlStore> {
        if location.starts_with("postgres:") || location.starts_with("postgresql:") {
            let opened = postgres::open(location, options).await?;
            let (pool, named) = (opened.writers, opened.named);
            return Ok(SqlStore {
                lanes: Lanes::by_kind(Source::Postgres { pool, named }),
                readers: Readers::Postgres {
                    pool: opened.readers,
                    named,
                },
            });
        }
        let opened = sqlite::open(location, options).await?;
        Ok(SqlStore {
            lanes: Lanes::one(Source::Sqlite(Box::new(opened.options))),
            readers: Readers::Sqlite(opened.readers),
        })
    }

    /// A connection for one read. Through a pooler it is a transaction: only inside one do two messages reach one server.
    async fn reader(&self) -> Result<Reading> {
        match &self.readers {
            Readers::Sqlite(pool) => Ok(Reading::Sqlite(pool.acquire().await.map_err(Fault::from)?)),
            Readers::Postgres { pool, named: true } => {
                Ok(Reading::Postgres(pool.acquire().await.map_err(Fault::from)?))
            }
            Readers::Postgres { named: false, .. } => self.moment().await,
        }
    }

    /// A transaction for several reads that must see one moment.
    ///
    /// It is begun in a task of its own. A caller may go away at any time, and the driver counts a transaction only when its
    /// BEGIN was answered: one that is given up before would go back into the pool open, and whoever reads on that connection
    /// next would see the past.
    async fn moment(&self) -> Result<Reading> {
        let readers = self.readers.clone();
        let begun = tokio::spawn(async move { readers.begin().await }).await;
        let begun = begun.map_err(|error| Fault::Data(error.into()))?;
        Ok(begun.map_err(Fault::from)?)
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn ping(&self) -> Result<()> {
        let migrations = match self.readers {
            Readers::Sqlite(_) => &sqlite::MIGRATIONS,
            Readers::Postgres { .. } => &postgres::MIGRATIONS,
        };
        schema::check(&mut self.moment().await?.conn(), migrations).await
    }

    async fn now(&self) -> Result<Micros> {
        let mut reading = match self.readers {
            // The embedded database has no clock but this machine's.
            Readers::Sqlite(_) => return Ok(clock::system()),
            Readers::Postgres { .. } => self.reader().await?,
        };
        let sql = sql!(sqlite: "", postgres: "SELECT clock_timestamp() AS now");
        Ok(reading.conn().one(sql, args![]).await?.micros("now")?)
    }

    async fn close(&self) {
        match &self.readers {
            Readers::Sqlite(pool) => pool.close().await,
            Readers::Postgres { pool, .. } => pool.close().await,
        }
        self.lanes.close().await;
    }

    async fn create_user(&self, user: NewUser) -> Result<Created<User>> {
        self.lanes.run(user).await
    }

    async fn ensure_user(&self, arrival: Arrival) -> Result<User> {
        self.lanes.run(arrival).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        Ok(people::by_email(&mut self.reader().await?.conn(), email).await?)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        Ok(people::by_id(&mut self.reader().await?.conn(), id).await?)
    }

    async fn update_profile(&self, id: UserId, change: ProfileChange, now: Micros) -> Result<Option<User>> {
        self.lanes.run(people::UpdateProfile { id, change, now }).await
    }

    async fn open_session(&self, session: NewSession) -> Result<bool> {
        self.lanes.run(session).await
    }

    async fn rotate_refresh(&self, rotation: Rotation) -> Result<Rotated> {
        self.lanes.run(rotation).await
    }

    async fn revoke_session(&self, session: SessionId, now: Micros) -> Result<()> {
        self.lanes.run(people::RevokeSession { session, now }).await
    }

    async fn end_foreign_session(&self, session: SessionId, user: UserId, now: Micros) -> Result<()> {
        self.lanes
            .run(elsewhere::EndForeignSession { session, user, now })
            .await
    }

    async fn revoked_since(&self, since: Micros) -> Result<Vec<(SessionId, Micros)>> {
        Ok(people::revoked_since(&mut self.reader().await?.conn(), since).await?)
    }

    async fn sessions(&self, user: UserId, now: Micros) -> Result<Vec<OpenSession>> {
        Ok(care::sessions(&mut self.reader().await?.conn(), user, now).await?)
    }

    async fn end_sessions(
        &self,
        user: UserId,
        only: Option<SessionId>,
        except: Option<SessionId>,
        now: Micros,
    ) -> Result<Vec<SessionId>> {
        let end = care::EndSessions {
            user,
            only,
            except,
            now,
        };
        self.lanes.run(end).await
    }

    async fn change_password(
        &self,
        user: UserId,
        old_hash: Option<String>,
        new_hash: String,
        keep: SessionId,
        now: Micros,
    ) -> Result<Option<Vec<SessionId>>> {
        let change = care::ChangePassword {
            user,
            old_hash,
            new_hash,
            keep,
            now,
        };
        self.lanes.run(change).await
    }

    async fn delete_user(&self, user: UserId, now: Micros) -> Result<bool> {
        self.lanes.run(care::DeleteUser { user, now }).await
    }

    async fn to_erase(&self, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>> {
        Ok(care::to_erase(&mut self.reader().await?.conn(), after, limit).await?)
    }

    async fn leftovers(&self, user: UserId, limit: u32) -> Result<Leftovers> {
        Ok(care::leftovers(&mut self.moment().await?.conn(), user, limit).await?)
    }

    async fn erase(&self, user: UserId, ended: &[GenerationId]) -> Result<()> {
        let ended = ended.to_vec();
        self.lanes.run(care::Erase { user, ended }).await
    }

    async fn finish_erasing(&self, user: UserId, left_before: Micros, now: Micros) -> Result<bool> {
        let finish = care::FinishErasing { user, left_before, now };
        self.lanes.run(finish).await
    }

    async fn create_api_key(&self, key: NewApiKey) -> Result<Created<ApiKey>> {
        self.lanes.run(key).await
    }

    async fn api_keys(&self, owner: UserId) -> Result<Vec<ApiKey>> {
        Ok(keys::list(&mut self.reader().await?.conn(), owner).await?)
    }

    async fn api_key(&self, owner: UserId, id: ApiKeyId) -> Result<Option<ApiKey>> {
        Ok(keys::owned(&mut self.reader().await?.conn(), owner, id).await?)
    }

    async fn change_api_key(
        &self,
        owner: UserId,
        id: ApiKeyId,
        change: ApiKeyChange,
        now: Micros,
    ) -> Result<Option<ApiKey>> {
        self.lanes.run(keys::ChangeKey { owner, id, change, now }).await
    }

    async fn revoke_api_key(&self, owner: UserId, id: ApiKeyId, now: Micros) -> Result<Option<ApiKey>> {
        self.lanes.run(keys::RevokeKey { owner, id, now }).await
    }

    async fn api_key_by_hash(&self, hash: &str) -> Result<Option<KeyHolder>> {
        Ok(keys::by_hash(&mut self.reader().await?.conn(), hash).await?)
    }

    async fn touch_api_keys(&self, uses: &[(ApiKeyId, Micros)]) -> Result<()> {
        self.lanes.run(keys::TouchKeys(uses.to_vec())).await
    }

    async fn balance(&self, user: UserId) -> Result<Option<Balance>> {
        Ok(credits::balance(&mut self.reader().await?.conn(), user).await?)
    }

    async fn statement(&self, user: UserId, filter: StatementFilter) -> Result<Page<StatementLine>> {
        Ok(credits::statement(&mut self.moment().await?.conn(), user, filter).await?)
    }

    async fn credit_stats(&self, user: UserId, since: Micros) -> Result<CreditStats> {
        Ok(credits::stats(&mut self.moment().await?.conn(), user, since).await?)
    }

    async fn grant(&self, grant: Grant) -> Result<Option<Granted>> {
        self.lanes.run(grant).await
    }

    async fn verify_ledger(&self) -> Result<LedgerReport> {
        let mut moment = self.moment().await?;
        let mut conn = moment.conn();
        if conn.dialect() == Dialect::Postgres {
            // It looks at everything, however long that takes.
            conn.command("SET LOCAL statement_timeout = 0").await?;
        }
        Ok(verify::ledger(&mut conn).await?)
    }

    async fn create_order(&self, order: NewOrder) -> Result<OrderMade> {
        self.lanes.run(order).await
    }

    async fn open_order(&self, checkout: Checkout) -> Result<Option<Order>> {
        self.lanes.run(checkout).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<OrderRecord>> {
        Ok(orders::record(&mut self.moment().await?.conn(), id).await?)
    }

    async fn orders(&self, filter: OrderFilter) -> Result<Vec<Order>> {
        Ok(orders::list(&mut self.reader().await?.conn(), &filter).await?)
    }

    async fn settle_order(&self, id: OrderId, by: By) -> Result<Option<(Order, bool)>> {
        self.lanes.run(orders::SettleOrder { id, by }).await
    }

    async fn record_payment(&self, notice: PaymentNotice) -> Result<Recorded> {
        self.lanes.run(notice).await
    }

    async fn expire_orders(&self, made_before: Micros, now: Micros) -> Result<u64> {
        self.lanes.run(orders::Expire { made_before, now }).await
    }

    async fn create_project(&self, project: NewProject) -> Result<Project> {
        self.lanes.run(project).await
    }

    async fn project(&self, viewer: UserId, id: ProjectId) -> Result<Option<Project>> {
        Ok(projects::by_id(&mut self.reader().await?.conn(), viewer, id).await?)
    }

    async fn projects(&self, viewer: UserId, filter: ProjectFilter) -> Result<Vec<Project>> {
        Ok(projects::list(&mut self.reader().await?.conn(), viewer, filter).await?)
    }

    async fn update_project(
        &self,
        owner: UserId,
        id: ProjectId,
        change: ProjectChange,
        now: Micros,
    ) -> Result<Option<Project>> {
        let update = projects::UpdateProject { owner, id, change, now };
        self.lanes.run(update).await
    }

    async fn delete_project(&self, owner: UserId, id: ProjectId) -> Result<bool> {
        // Emptied first, some at a time: all at once would lock every generation of a large one.
        let empty = || projects::EmptyProject { owner, id };
        while self.lanes.run(empty()).await? {}
        self.lanes.run(projects::DeleteProject { owner, id }).await
    }

    async fn submit(&self, new: NewGeneration) -> Result<Submitted> {
        self.lanes.submit(new).await
    }

    async fn generation(&self, owner: UserId, id: GenerationId) -> Result<Option<Generation>> {
        Ok(generations::owned(&mut self.reader().await?.conn(), owner, id).await?)
    }

    async fn generations(&self, owner: UserId, filter: GenerationFilter) -> Result<Page<Generation>> {
        Ok(generations::list(&mut self.moment().await?.conn(), owner, filter).await?)
    }

    async fn generation_stats(&self, owner: UserId, project: Option<ProjectId>) -> Result<GenerationStats> {
        Ok(generations::stats(&mut self.reader().await?.conn(), owner, project).await?)
    }

    async fn toggle_favorite(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Generation>> {
        self.lanes.run(generations::ToggleFavorite { owner, id, now }).await
    }

    async fn delete_generation(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Deleted> {
        self.lanes.run(generations::DeleteGeneration { owner, id, now }).await
    }

    async fn cancel(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Cancelled>> {
        self.lanes.run(resolve::Cancel { owner, id, now }).await
    }

    async fn events(&self, owner: UserId, id: GenerationId, after_seq: i64) -> Result<Vec<Event>> {
        Ok(events::list(&mut self.reader().await?.conn(), owner, id, after_seq).await?)
    }

    async fn system_counts(&self, too_old: Micros) -> Result<SystemCounts> {
        Ok(operations::system_counts(&mut self.moment().await?.conn(), too_old).await?)
    }

    fn connections(&self) -> Vec<Connections> {
        [Some(self.readers.connections()), self.lanes.connections()]
            .into_iter()
            .flatten()
            .collect()
    }

    async fn claim_ledger_check(&self, every: Duration, now: Micros) -> Result<bool> {
        let not_since = now.minus(every);
        self.lanes.run(operations::ClaimLedgerCheck { not_since, now }).await
    }

    async fn finish_ledger_check(&self, check: LedgerCheck) -> Result<()> {
        self.lanes.run(check).await
    }

    async fn log_level(&self) -> Result<Option<LogLevel>> {
        Ok(operations::log_level(&mut self.reader().await?.conn()).await?)
    }

    async fn set_log_level(&self, set: SetLogLevel) -> Result<()> {
        self.lanes.run(set).await
    }

    async fn queued(&self, after: Option<GenerationId>, limit: u32) -> Result<Vec<QueuedGeneration>> {
        Ok(generations::queued(&mut self.reader().await?.conn(), after, limit).await?)
    }

    async fn begin_attempt(&self, begin: BeginAttempt) -> Result<Option<(Work, Vec<Event>)>> {
        self.lanes.begin(begin).await
    }

    async fn work(&self, attempt: AttemptId, worker: &str) -> Result<Option<Work>> {
        Ok(leases::work(&mut self.moment().await?.conn(), attempt, worker).await?)
    }

    async fn adopt(&self, worker: &str, now: Micros, lease_until: Micros, limit: u32) -> Result<Vec<Adopted>> {
        let worker = worker.to_owned();
        let adopt = leases::Adopt {
            worker,
            now,
            lease_until,
            limit,
        };
        self.lanes.run(adopt).await
    }

    async fn held(&self, worker: &str) -> Result<Vec<AttemptId>> {
        Ok(leases::held(&mut self.reader().await?.conn(), worker).await?)
    }

    async fn living_workers(&self, now: Micros) -> Result<u32> {
        Ok(leases::living_workers(&mut self.reader().await?.conn(), now).await?)
    }

    async fn extend_leases(&self, worker: &str, lease_until: Micros) -> Result<u64> {
        let worker = worker.to_owned();
        self.lanes.run(leases::ExtendLeases { worker, lease_until }).await
    }

    async fn release_leases(&self, worker: &str, keep: &[AttemptId]) -> Result<u64> {
        let (worker, keep) = (worker.to_owned(), keep.to_vec());
        self.lanes.run(leases::ReleaseLeases { worker, keep }).await
    }

    async fn free_all_leases(&self) -> Result<u64> {
        self.lanes.run(leases::FreeAllLeases).await
    }

    async fn save_step(&self, step: SaveStep) -> Result<Saved> {
        self.lanes.step(step).await
    }

    async fn next_attempt(&self, next: NextAttempt) -> Result<Option<Work>> {
        self.lanes.run(next).await
    }

    async fn reroute(&self, reroute: Reroute) -> Result<Rerouted> {
        self.lanes.run(reroute).await
    }

    async fn settle(&self, settle: Settle) -> Result<Settled> {
        self.lanes.settle(settle).await
    }

    async fn deliver_webhook(
        &self,
        provider: &str,
        attempt: AttemptId,
        body: Vec<u8>,
        now: Micros,
    ) -> Result<Delivered> {
        let provider = provider.to_owned();
        let webhook = attempts::DeliverWebhook {
            provider,
            attempt,
            body,
            now,
        };
        self.lanes.run(webhook).await
    }

    async fn attempts_in(&self, state: AttemptState, limit: u32) -> Result<Vec<(Attempt, Generation)>> {
        Ok(attempts::in_state(&mut self.moment().await?.conn(), state, limit).await?)
    }

    async fn newest_attempt(&self, id: GenerationId) -> Result<Option<(Attempt, Generation)>> {
        let mut moment = self.moment().await?;
        let mut conn = moment.conn();
        let attempt = attempts::newest(&mut conn, id).await?;
        let generation = generations::by_id(&mut conn, id).await?;
        Ok(attempt.zip(generation))
    }

    async fn resolve_unknown(&self, resolution: Resolve) -> Result<Resolved> {
        self.lanes.run(resolution).await
    }

    async fn people(&self, filter: UserFilter) -> Result<Listed<Person>> {
        Ok(desk::find_people(&mut self.reader().await?.conn(), filter).await?)
    }

    async fn change_user(&self, change: ChangeUser) -> Result<UserChanged> {
        self.lanes.run(change).await
    }

    async fn correct(&self, correct: Correct) -> Result<Corrected> {
        self.lanes.run(correct).await
    }

    async fn refund(&self, refund: Refund) -> Result<Refunded> {
        self.lanes.run(refund).await
    }

    async fn cases(&self, filter: CaseFilter) -> Result<Listed<Case>> {
        Ok(cases::list(&mut self.moment().await?.conn(), filter).await?)
    }

    async fn case(&self, id: GenerationId) -> Result<Option<CaseFile>> {
        Ok(cases::file(&mut self.moment().await?.conn(), id).await?)
    }

    async fn search(&self, search: Search, after: Option<GenerationId>, limit: u32) -> Result<Listed<Case>> {
        Ok(cases::search(&mut self.moment().await?.conn(), search, after, limit).await?)
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Listed<AuditEntry>> {
        Ok(audit::list(&mut self.reader().await?.conn(), filter).await?)
    }

    async fn pauses(&self) -> Result<Vec<Pause>> {
        Ok(pauses::all(&mut self.reader().await?.conn()).await?)
    }

    async fn set_pause(&self, set: SetPause) -> Result<Mode> {
        self.lanes.run(set).await
    }

    async fn create_code(&self, new: NewCode) -> Result<Created<RedeemCode>> {
        self.lanes.run(new).await
    }

    async fn codes(&self, after: Option<RedeemCodeId>, limit: u32) -> Result<Listed<RedeemCode>> {
        Ok(codes::list(&mut self.reader().await?.conn(), after, limit).await?)
    }

    async fn code(&self, id: RedeemCodeId) -> Result<Option<(RedeemCode, Vec<Redemption>)>> {
        Ok(codes::by_id(&mut self.moment().await?.conn(), id).await?)
    }

    async fn disable_code(&self, id: RedeemCodeId, by: By) -> Result<Option<(RedeemCode, bool)>> {
        self.lanes.run(codes::Disable { id, by }).await
    }

    async fn redeem(&self, redeem: Redeem) -> Result<Redeemed> {
        self.lanes.run(redeem).await
    }
}
