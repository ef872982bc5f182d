//! The embedded store: one SQLite file, one writer task, a pool of readers. Single node.
//!
//! Every change goes through [`writer`], which groups concurrent ones into shared transactions; reads run beside it on
//! their own connections and see what is committed. The rules of money are in [`books`] and [`settle`], and nowhere
//! else. Commits are durable (`synchronous=FULL`): grouped, that costs almost nothing.

mod attempts;
mod books;
mod credits;
mod error;
mod events;
mod generations;
mod open;
mod people;
mod projects;
mod resolve;
mod rows;
mod settle;
mod submit;
mod verify;
mod writer;

pub use open::OpenOptions;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};

use self::error::Fault;
use self::writer::Writer;
use super::{
    Adopted, BeginAttempt, Cancelled, Created, CreditStats, Deleted, Delivered, GenerationFilter, GenerationStats,
    Grant, Granted, LedgerReport, NewGeneration, NewProject, NewSession, NewUser, NextAttempt, Page, ProfileChange,
    Project, ProjectChange, ProjectFilter, QueuedGeneration, Resolve, Resolved, Result, Role, Rotated, Rotation,
    SaveStep, Saved, Settle, Settled, StatementFilter, StatementLine, Store, Submitted, SystemCounts, User, Work,
};
use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, Generation};
use crate::id::{AttemptId, GenerationId, ProjectId, SessionId, UserId};
use crate::ledger::Balance;

/// The embedded store.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the database at `location`, a path or a `sqlite:` URL.
    ///
    /// # Errors
    ///
    /// [`super::StoreError::Schema`] names the remedy when there is no database, or its schema is older, newer or other than
    /// the one this program knows (an older one is brought up to date when `options.migrate` asks for it).
    pub async fn open(location: &str, options: OpenOptions) -> Result<SqliteStore> {
        let opened = open::open(location, options).await?;
        Ok(SqliteStore {
            writer: Writer::start(opened.writer, opened.options),
            readers: opened.readers,
        })
    }

    /// A connection for one read.
    async fn reader(&self) -> Result<PoolConnection<Sqlite>> {
        Ok(self.readers.acquire().await.map_err(Fault::from)?)
    }

    /// A transaction for several reads that must see one moment. Dropped, it rolls back: there is nothing to commit.
    async fn moment(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await.map_err(Fault::from)?)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<()> {
        open::check_schema(&mut *self.moment().await?).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn create_user(&self, user: NewUser) -> Result<Created<User>> {
        self.writer.run(user).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        Ok(people::by_email(&mut *self.reader().await?, email).await?)
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        Ok(people::by_id(&mut *self.reader().await?, id).await?)
    }

    async fn update_profile(&self, id: UserId, change: ProfileChange, now: Micros) -> Result<Option<User>> {
        self.writer.run(people::UpdateProfile { id, change, now }).await
    }

    async fn set_role(&self, email: &str, role: Role, now: Micros) -> Result<Option<User>> {
        let email = email.to_owned();
        self.writer.run(people::SetRole { email, role, now }).await
    }

    async fn open_session(&self, session: NewSession) -> Result<()> {
        self.writer.run(session).await
    }

    async fn rotate_refresh(&self, rotation: Rotation) -> Result<Rotated> {
        self.writer.run(rotation).await
    }

    async fn revoke_session(&self, session: SessionId, now: Micros) -> Result<()> {
        self.writer.run(people::RevokeSession { session, now }).await
    }

    async fn revoked_since(&self, since: Micros) -> Result<Vec<(SessionId, Micros)>> {
        Ok(people::revoked_since(&mut *self.reader().await?, since).await?)
    }

    async fn balance(&self, user: UserId) -> Result<Option<Balance>> {
        Ok(credits::balance(&mut *self.reader().await?, user).await?)
    }

    async fn statement(&self, user: UserId, filter: StatementFilter) -> Result<Page<StatementLine>> {
        Ok(credits::statement(&mut *self.moment().await?, user, filter).await?)
    }

    async fn credit_stats(&self, user: UserId, since: Micros) -> Result<CreditStats> {
        Ok(credits::stats(&mut *self.moment().await?, user, since).await?)
    }

    async fn grant(&self, grant: Grant) -> Result<Option<Granted>> {
        self.writer.run(grant).await
    }

    async fn verify_ledger(&self) -> Result<LedgerReport> {
        Ok(verify::ledger(&mut *self.moment().await?).await?)
    }

    async fn create_project(&self, project: NewProject) -> Result<Project> {
        self.writer.run(project).await
    }

    async fn project(&self, viewer: UserId, id: ProjectId) -> Result<Option<Project>> {
        Ok(projects::by_id(&mut *self.reader().await?, viewer, id).await?)
    }

    async fn projects(&self, viewer: UserId, filter: ProjectFilter) -> Result<Vec<Project>> {
        Ok(projects::list(&mut *self.reader().await?, viewer, filter).await?)
    }

    async fn update_project(
        &self,
        owner: UserId,
        id: ProjectId,
        change: ProjectChange,
        now: Micros,
    ) -> Result<Option<Project>> {
        let update = projects::UpdateProject { owner, id, change, now };
        self.writer.run(update).await
    }

    async fn delete_project(&self, owner: UserId, id: ProjectId) -> Result<bool> {
        self.writer.run(projects::DeleteProject { owner, id }).await
    }

    async fn submit(&self, new: NewGeneration) -> Result<Submitted> {
        self.writer.submit(new).await
    }

    async fn generation(&self, owner: UserId, id: GenerationId) -> Result<Option<Generation>> {
        Ok(generations::owned(&mut *self.reader().await?, owner, id).await?)
    }

    async fn generations(&self, owner: UserId, filter: GenerationFilter) -> Result<Page<Generation>> {
        Ok(generations::list(&mut *self.moment().await?, owner, filter).await?)
    }

    async fn generation_stats(&self, owner: UserId, project: Option<ProjectId>) -> Result<GenerationStats> {
        Ok(generations::stats(&mut *self.reader().await?, owner, project).await?)
    }

    async fn toggle_favorite(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Generation>> {
        self.writer.run(generations::ToggleFavorite { owner, id, now }).await
    }

    async fn delete_generation(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Deleted> {
        self.writer.run(generations::DeleteGeneration { owner, id, now }).await
    }

    async fn cancel(&self, owner: UserId, id: GenerationId, now: Micros) -> Result<Option<Cancelled>> {
        self.writer.run(resolve::Cancel { owner, id, now }).await
    }

    async fn events(&self, owner: UserId, id: GenerationId, after_seq: i64) -> Result<Vec<Event>> {
        Ok(events::list(&mut *self.reader().await?, owner, id, after_seq).await?)
    }

    async fn system_counts(&self) -> Result<SystemCounts> {
        Ok(generations::system_counts(&mut *self.moment().await?).await?)
    }

    async fn queued(&self, after: Option<GenerationId>, limit: u32) -> Result<Vec<QueuedGeneration>> {
        Ok(generations::queued(&mut *self.reader().await?, after, limit).await?)
    }

    async fn begin_attempt(&self, begin: BeginAttempt) -> Result<Option<(Work, Vec<Event>)>> {
        self.writer.begin(begin).await
    }

    async fn work(&self, attempt: AttemptId, worker: &str) -> Result<Option<Work>> {
        Ok(attempts::work(&mut *self.moment().await?, attempt, worker).await?)
    }

    async fn adopt(&self, worker: &str, now: Micros, lease_until: Micros, limit: u32) -> Result<Vec<Adopted>> {
        let worker = worker.to_owned();
        let adopt = attempts::Adopt {
            worker,
            now,
            lease_until,
            limit,
        };
        self.writer.run(adopt).await
    }

    async fn held(&self, worker: &str) -> Result<Vec<AttemptId>> {
        Ok(attempts::held(&mut *self.reader().await?, worker).await?)
    }

    async fn living_workers(&self, now: Micros) -> Result<u32> {
        Ok(attempts::living_workers(&mut *self.reader().await?, now).await?)
    }

    async fn extend_leases(&self, worker: &str, lease_until: Micros) -> Result<u64> {
        let worker = worker.to_owned();
        self.writer.run(attempts::ExtendLeases { worker, lease_until }).await
    }

    async fn release_leases(&self, worker: &str) -> Result<u64> {
        let worker = worker.to_owned();
        self.writer.run(attempts::ReleaseLeases { worker }).await
    }

    async fn free_all_leases(&self) -> Result<u64> {
        self.writer.run(attempts::FreeAllLeases).await
    }

    async fn save_step(&self, step: SaveStep) -> Result<Saved> {
        self.writer.step(step).await
    }

    async fn next_attempt(&self, next: NextAttempt) -> Result<Option<Work>> {
        self.writer.run(next).await
    }

    async fn settle(&self, settle: Settle) -> Result<Settled> {
        self.writer.settle(settle).await
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
        self.writer.run(webhook).await
    }

    async fn attempts_in(&self, state: AttemptState, limit: u32) -> Result<Vec<(Attempt, Generation)>> {
        Ok(attempts::in_state(&mut *self.moment().await?, state, limit).await?)
    }

    async fn newest_attempt(&self, id: GenerationId) -> Result<Option<(Attempt, Generation)>> {
        let mut moment = self.moment().await?;
        let attempt = attempts::newest(&mut moment, id).await?;
        let generation = generations::by_id(&mut moment, id).await?;
        Ok(attempt.zip(generation))
    }

    async fn resolve_unknown(&self, resolution: Resolve) -> Result<Resolved> {
        self.writer.run(resolution).await
    }
}
