//! The one writer: every change of the database passes through this task, many of them per transaction.
//!
//! The task takes whatever waits, opens ONE transaction, carries everything out, commits, and only then answers. A lone
//! write waits for nobody; under load the next batch is what queued up while the last one was committed. Invariants:
//!
//! - A caller hears of success only after COMMIT.
//! - Requests of a kind that have a bulk form run together under one savepoint; when that fails they run again one by
//!   one, each under its own, so that one bad request cannot sink its neighbours. Others run under their own savepoint
//!   from the start.
//! - When the transaction itself is lost (SQLite rolls back by itself on a full disk, for example) every member is
//!   tried once more in a transaction of its own. After a COMMIT that failed for another reason than a broken
//!   constraint, nothing is tried again.
//! - A caller that went away before its request began is skipped; one that goes away later changes nothing: the
//!   request belongs to this task, so no half state is possible.

use async_trait::async_trait;
use futures_util::FutureExt;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::panic::AssertUnwindSafe;
use tokio::sync::{mpsc, oneshot};

use super::error::{Fault, Result};
use crate::store::{BeginAttempt, NewGeneration, SaveStep, Settle, StoreError};

/// Requests that may wait for the writer; more callers wait outside.
const WAITING: usize = 4096;
/// Requests in one transaction.
const BATCH: usize = 512;

/// A change that is carried out alone, inside the shared transaction. May run twice; only one run is committed.
#[async_trait]
pub(super) trait Write: Send + Sync + 'static {
    type Out: Send + 'static;
    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Self::Out>;
}

/// A change of which many are carried out by the same few statements. The answers are in the order of the requests.
#[async_trait]
pub(super) trait BulkWrite: Send + Sync + Sized + 'static {
    type Out: Send + 'static;
    async fn apply_all(conn: &mut SqliteConnection, requests: &[&Self]) -> Result<Vec<Self::Out>>;
}

/// Where the answer goes.
type Reply<T> = oneshot::Sender<std::result::Result<T, StoreError>>;

/// A request on its way to the task.
enum Message {
    Submit(NewGeneration, Reply<<NewGeneration as BulkWrite>::Out>),
    Begin(BeginAttempt, Reply<<BeginAttempt as BulkWrite>::Out>),
    Step(SaveStep, Reply<<SaveStep as BulkWrite>::Out>),
    Settle(Settle, Reply<<Settle as BulkWrite>::Out>),
    Single(Box<dyn Unit>),
    /// Finish what waits, then end.
    Close,
}

/// The sending side; cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    ended: tokio_util::sync::CancellationToken,
}

impl Writer {
    /// Takes over the connection and starts the task. `options` reopen the connection if it breaks.
    pub(super) fn start(conn: SqliteConnection, options: SqliteConnectOptions) -> Writer {
        let (queue, waiting) = mpsc::channel(WAITING);
        let ended = tokio_util::sync::CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let task = Task {
            conn: Some(conn),
            options,
        };
        tokio::spawn(async move {
            task.run(waiting).await;
            drop(guard);
        });
        Writer { queue, ended }
    }

    /// Carries out a single change.
    pub(super) async fn run<W: Write>(&self, write: W) -> std::result::Result<W::Out, StoreError> {
        self.send(|reply| Message::Single(Box::new(Group::<Alone<W>>::of(Alone(write), reply))))
            .await
    }

    pub(super) async fn submit(&self, new: NewGeneration) -> std::result::Result<crate::store::Submitted, StoreError> {
        self.send(|reply| Message::Submit(new, reply)).await
    }

    pub(super) async fn begin(
        &self,
        begin: BeginAttempt,
    ) -> std::result::Result<<BeginAttempt as BulkWrite>::Out, StoreError> {
        self.send(|reply| Message::Begin(begin, reply)).await
    }

    pub(super) async fn step(&self, step: SaveStep) -> std::result::Result<crate::store::Saved, StoreError> {
        self.send(|reply| Message::Step(step, reply)).await
    }

    pub(super) async fn settle(&self, settle: Settle) -> std::result::Result<crate::store::Settled, StoreError> {
        self.send(|reply| Message::Settle(settle, reply)).await
    }

    async fn send<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> std::result::Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable(anyhow::anyhow!("the store is closed"));
        self.queue.send(message(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Finishes what waits and ends the task.
    pub(super) async fn close(&self) {
        // An error means that the task has ended already.
        let _ = self.queue.send(Message::Close).await;
        self.ended.cancelled().await;
    }
}

/// Some requests of one kind with their answers.
#[async_trait]
trait Unit: Send {
    /// Drops requests whose callers went away; how many remain.
    fn prune(&mut self) -> usize;
    /// Carries all of them out in the open transaction. An error means that the transaction is lost.
    async fn run(&mut self, conn: &mut SqliteConnection) -> Result<()>;
    /// Carries one of them out in the open transaction.
    async fn run_one(&mut self, conn: &mut SqliteConnection, index: usize) -> Result<()>;
    /// Gives one of them an error for an answer.
    fn fail(&mut self, index: usize, error: StoreError);
    /// Tells the callers.
    fn answer(self: Box<Self>);
}

struct Group<B: BulkWrite> {
    requests: Vec<B>,
    replies: Vec<Reply<B::Out>>,
    answers: Vec<Option<std::result::Result<B::Out, StoreError>>>,
}

impl<B: BulkWrite> Group<B> {
    fn new() -> Self {
        Group {
            requests: Vec::new(),
            replies: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn of(request: B, reply: Reply<B::Out>) -> Self {
        let mut group = Group::new();
        group.push(request, reply);
        group
    }

    fn push(&mut self, request: B, reply: Reply<B::Out>) {
        self.requests.push(request);
        self.replies.push(reply);
        self.answers.push(None);
    }
}

#[async_trait]
impl<B: BulkWrite> Unit for Group<B> {
    fn prune(&mut self) -> usize {
        for index in (0..self.requests.len()).rev() {
            if self.replies[index].is_closed() {
                self.requests.remove(index);
                self.replies.remove(index);
                self.answers.remove(index);
            }
        }
        self.requests.len()
    }

    async fn run(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        savepoint(conn).await?;
        let requests: Vec<&B> = self.requests.iter().collect();
        match B::apply_all(conn, &requests).await {
            Ok(outs) if outs.len() == requests.len() => {
                release(conn).await?;
                self.answers = outs.into_iter().map(|out| Some(Ok(out))).collect();
            }
            Ok(outs) => {
                let (asked, answered) = (requests.len(), outs.len());
                return Err(Fault::Data(anyhow::anyhow!("{asked} requests got {answered} answers")));
            }
            Err(fault) => {
                undo(conn).await?;
                if let [_] = requests[..] {
                    self.answers[0] = Some(Err(fault.into()));
                } else {
                    tracing::debug!(
                        ?fault,
                        members = requests.len(),
                        "a batch failed; trying its members one by one"
                    );
                    for index in 0..self.requests.len() {
                        self.run_one(conn, index).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn run_one(&mut self, conn: &mut SqliteConnection, index: usize) -> Result<()> {
        savepoint(conn).await?;
        let answer = match B::apply_all(conn, &[&self.requests[index]]).await {
            Ok(outs) => {
                release(conn).await?;
                outs.into_iter()
                    .next()
                    .ok_or_else(|| StoreError::Broken(anyhow::anyhow!("a request got no answer")))
            }
            Err(fault) => {
                undo(conn).await?;
                Err(fault.into())
            }
        };
        self.answers[index] = Some(answer);
        Ok(())
    }

    fn fail(&mut self, index: usize, error: StoreError) {
        if let Some(answer) = self.answers.get_mut(index) {
            *answer = Some(Err(error));
        }
    }

    fn answer(self: Box<Self>) {
        for (reply, answer) in self.replies.into_iter().zip(self.answers) {
            let unanswered = || Err(StoreError::Broken(anyhow::anyhow!("the writer gave no answer")));
            // An error only says that the caller went away.
            let _ = reply.send(answer.unwrap_or_else(unanswered));
        }
    }
}

/// A change without a bulk form, as a group of one.
struct Alone<W: Write>(W);

#[async_trait]
impl<W: Write> BulkWrite for Alone<W> {
    type Out = W::Out;

    async fn apply_all(conn: &mut SqliteConnection, requests: &[&Self]) -> Result<Vec<W::Out>> {
        let mut outs = Vec::with_capacity(requests.len());
        for request in requests {
            outs.push(request.0.apply(conn).await?);
        }
        Ok(outs)
    }
}

async fn savepoint(conn: &mut SqliteConnection) -> Result<()> {
    execute(conn, "SAVEPOINT request").await
}

async fn release(conn: &mut SqliteConnection) -> Result<()> {
    execute(conn, "RELEASE request").await
}

/// Undoes what was done since the savepoint. Fails when the transaction is gone.
async fn undo(conn: &mut SqliteConnection) -> Result<()> {
    execute(conn, "ROLLBACK TO request").await?;
    release(conn).await
}

async fn execute(conn: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    sqlx::query(sql).execute(conn).await?;
    Ok(())
}

/// How a transaction failed.
enum Failed {
    /// Lost on its way: nothing was written, and its members may fare better alone.
    Lost(Fault),
    /// It could not begin, or its COMMIT failed: another try would only wait longer or do it twice.
    Hopeless(Fault),
}

struct Task {
    /// `None` after a failure: opened again for the next batch.
    conn: Option<SqliteConnection>,
    options: SqliteConnectOptions,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut messages, BATCH).await > 0 {
            let units = sort(&mut messages, &mut waiting);
            if units.is_empty() {
                continue;
            }
            self.batch(units).await;
        }
        if let Some(conn) = self.conn.take() {
            // The file is consistent whatever happens here: closing only tidies the write-ahead log away.
            if let Err(error) = conn.close().await {
                tracing::warn!(%error, "closing the database failed");
            }
        }
    }

    /// Carries a batch out and answers everybody.
    async fn batch(&mut self, mut units: Vec<Box<dyn Unit>>) {
        // A panic is a bug in one request; it must not take every later write with it.
        let outcome = AssertUnwindSafe(self.together(&mut units)).catch_unwind().await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(Failed::Lost(fault))) => {
                tracing::warn!(?fault, "a transaction was lost; trying its members one by one");
                for unit in &mut units {
                    for index in 0..unit.prune() {
                        self.apart(unit, index).await;
                    }
                }
            }
            Ok(Err(Failed::Hopeless(fault))) => {
                self.conn = None;
                fail_all(&mut units, &format!("the transaction failed: {fault:?}"));
            }
            Err(_) => {
                self.conn = None;
                fail_all(&mut units, "a request panicked");
            }
        }
        for unit in units {
            unit.answer();
        }
    }

    async fn together(&mut self, units: &mut [Box<dyn Unit>]) -> std::result::Result<(), Failed> {
        let conn = self.begin().await.map_err(Failed::Hopeless)?;
        for unit in units.iter_mut() {
            if let Err(fault) = unit.run(conn).await {
                self.conn = None;
                return Err(Failed::Lost(fault));
            }
        }
        match execute(conn, "COMMIT").await {
            Ok(()) => Ok(()),
            // Refused, so certainly not committed: one member broke a rule that is checked last.
            Err(fault) if fault.is_refusal() => {
                self.conn = None;
                Err(Failed::Lost(fault))
            }
            Err(fault) => Err(Failed::Hopeless(fault)),
        }
    }

    /// One request in a transaction of its own.
    async fn apart(&mut self, unit: &mut Box<dyn Unit>, index: usize) {
        let outcome = AssertUnwindSafe(async {
            let conn = self.begin().await?;
            unit.run_one(conn, index).await?;
            execute(conn, "COMMIT").await
        })
        .catch_unwind()
        .await;
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => fault.into(),
            Err(_) => StoreError::Broken(anyhow::anyhow!("a request panicked")),
        };
        self.conn = None;
        unit.fail(index, error);
    }

    /// The connection with a transaction that may write at once.
    async fn begin(&mut self) -> Result<&mut SqliteConnection> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.options.connect().await?,
        };
        let conn = self.conn.insert(conn);
        execute(conn, "BEGIN IMMEDIATE").await?;
        Ok(conn)
    }
}

fn fail_all(units: &mut [Box<dyn Unit>], why: &str) {
    for unit in units {
        for index in 0..unit.prune() {
            unit.fail(index, StoreError::Unavailable(anyhow::anyhow!("{why}")));
        }
    }
}

/// Groups messages by kind. Whatever waits at the same time is concurrent, so the order between kinds is free; inside a
/// kind the order of arrival stays.
fn sort(messages: &mut Vec<Message>, waiting: &mut mpsc::Receiver<Message>) -> Vec<Box<dyn Unit>> {
    let mut submits = Group::<NewGeneration>::new();
    let mut begins = Group::<BeginAttempt>::new();
    let mut steps = Group::<SaveStep>::new();
    let mut settles = Group::<Settle>::new();
    let mut units: Vec<Box<dyn Unit>> = Vec::new();
    for message in messages.drain(..) {
        match message {
            Message::Submit(request, reply) => submits.push(request, reply),
            Message::Begin(request, reply) => begins.push(request, reply),
            Message::Step(request, reply) => steps.push(request, reply),
            Message::Settle(request, reply) => settles.push(request, reply),
            Message::Single(unit) => units.push(unit),
            // What is in the channel is still taken; nothing more comes in.
            Message::Close => waiting.close(),
        }
    }
    let groups: [Box<dyn Unit>; 4] = [Box::new(submits), Box::new(begins), Box::new(steps), Box::new(settles)];
    units.extend(groups);
    units.retain_mut(|unit| unit.prune() > 0);
    units
}
