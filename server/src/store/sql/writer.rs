//! A writer: a task through which changes of the database pass, many of them per transaction.
//!
//! The task takes whatever waits, opens ONE transaction, carries everything out, commits, and only then answers. A lone
//! write waits for nobody; under load the next batch is what queued up while the last one was committed. SQLite has one
//! writer for everything; PostgreSQL has one or two for each kind of bulk change (see [`super::lanes`]). Invariants:
//!
//! - A caller hears of success only after COMMIT.
//! - Requests of a kind that have a bulk form run together; when that fails they run again one by one, so that one bad
//!   request cannot sink its neighbours. In SQLite each kind has a savepoint; in PostgreSQL, where a savepoint costs two
//!   round trips and an error ends the transaction, the transaction is given up and its members get one each.
//! - What another transaction was in the way of is tried again a few times.
//! - A transaction whose connection broke before COMMIT was sent has written nothing: it is tried once more as a whole.
//!   After a COMMIT that failed for another reason than a broken constraint, nothing is tried again.
//! - A caller that went away before its request began is skipped; one that goes away later changes nothing: the
//!   request belongs to this task, so no half state is possible.

use async_trait::async_trait;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::conn::{Conn, Dialect};
use super::error::{Fault, Result};
use super::session::{Session, Source};
use crate::store::{BeginAttempt, NewGeneration, SaveStep, Settle, StoreError};

/// Requests that may wait for the writer; more callers wait outside.
const WAITING: usize = 4096;
/// Requests in one transaction.
const BATCH: usize = 512;
/// How often a request that another transaction was in the way of is tried.
const TRIES: u32 = 5;
/// How long a transaction may take; more than any lock or statement may take in PostgreSQL.
const PATIENCE: Duration = Duration::from_secs(15);

/// A change that is carried out alone, inside the shared transaction. May run twice; only one run is committed.
#[async_trait]
pub(super) trait Write: Send + Sync + 'static {
    type Out: Send + 'static;
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Self::Out>;
}

/// A change of which many are carried out by the same few statements. The answers are in the order of the requests.
#[async_trait]
pub(super) trait BulkWrite: Send + Sync + Sized + 'static {
    type Out: Send + 'static;
    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<Self::Out>>;
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
    /// Starts the task over a source of connections.
    pub(super) fn start(source: Source) -> Writer {
        let (queue, waiting) = mpsc::channel(WAITING);
        let ended = tokio_util::sync::CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let task = Task { source, session: None };
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
    async fn run(&mut self, conn: &mut Conn<'_>) -> Result<()>;
    /// Carries one of them out in the open transaction.
    async fn run_one(&mut self, conn: &mut Conn<'_>, index: usize) -> Result<()>;
    /// True when the caller of one of them has gone away meanwhile.
    fn is_abandoned(&self, index: usize) -> bool;
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

    async fn run(&mut self, conn: &mut Conn<'_>) -> Result<()> {
        let safe = Safe::begin(conn).await?;
        let requests: Vec<&B> = self.requests.iter().collect();
        match B::apply_all(conn, &requests).await {
            Ok(outs) if outs.len() == requests.len() => {
                safe.end(conn).await?;
                self.answers = outs.into_iter().map(|out| Some(Ok(out))).collect();
            }
            Ok(outs) => {
                let (asked, answered) = (requests.len(), outs.len());
                return Err(Fault::Data(anyhow::anyhow!("{asked} requests got {answered} answers")));
            }
            Err(fault) => {
                let fault = safe.undo(conn, fault).await?;
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

    async fn run_one(&mut self, conn: &mut Conn<'_>, index: usize) -> Result<()> {
        let safe = Safe::begin(conn).await?;
        let answer = match B::apply_all(conn, &[&self.requests[index]]).await {
            Ok(outs) => {
                safe.end(conn).await?;
                outs.into_iter()
                    .next()
                    .ok_or_else(|| StoreError::Broken(anyhow::anyhow!("a request got no answer")))
            }
            Err(fault) => Err(safe.undo(conn, fault).await?.into()),
        };
        self.answers[index] = Some(answer);
        Ok(())
    }

    fn is_abandoned(&self, index: usize) -> bool {
        self.replies.get(index).is_some_and(Reply::is_closed)
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

    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<W::Out>> {
        let mut outs = Vec::with_capacity(requests.len());
        for request in requests {
            outs.push(request.0.apply(conn).await?);
        }
        Ok(outs)
    }
}

/// A place in the transaction to come back to, where the database has cheap ones.
struct Safe(bool);

impl Safe {
    async fn begin(conn: &mut Conn<'_>) -> Result<Safe> {
        let savepoint = conn.dialect() == Dialect::Sqlite;
        if savepoint {
            conn.command("SAVEPOINT request").await?;
        }
        Ok(Safe(savepoint))
    }

    async fn end(self, conn: &mut Conn<'_>) -> Result<()> {
        match self.0 {
            true => conn.command("RELEASE request").await,
            false => Ok(()),
        }
    }

    /// Undoes what was done since and gives the fault back; fails with it when the transaction is lost.
    async fn undo(self, conn: &mut Conn<'_>, fault: Fault) -> Result<Fault> {
        if !self.0 {
            return Err(fault);
        }
        conn.command("ROLLBACK TO request").await?;
        conn.command("RELEASE request").await?;
        Ok(fault)
    }
}

/// How a transaction failed.
enum Failed {
    /// Lost on its way: nothing was written, and its members may fare better alone.
    Lost(Fault),
    /// Lost with its connection: nothing was written, and the members would fare no better.
    Disconnected(Fault),
    /// Its COMMIT failed: another try might do it twice.
    Hopeless(Fault),
}

impl Failed {
    fn before_commit(fault: Fault) -> Failed {
        match fault.is_disconnected() {
            true => Failed::Disconnected(fault),
            false => Failed::Lost(fault),
        }
    }
}

struct Task {
    source: Source,
    /// `None` before the first batch, after a failure, and where connections come from a pool.
    session: Option<Session>,
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
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    /// Carries a batch out and answers everybody.
    async fn batch(&mut self, mut units: Vec<Box<dyn Unit>>) {
        let mut outcome = self.guarded(&mut units).await;
        if let Err(Failed::Disconnected(fault)) = &outcome {
            tracing::debug!(?fault, "the connection broke; trying once more");
            outcome = self.guarded(&mut units).await;
        }
        match outcome {
            Ok(()) => {}
            Err(Failed::Lost(fault)) => self.one_by_one(&mut units, fault).await,
            Err(Failed::Disconnected(fault) | Failed::Hopeless(fault)) => {
                self.discard();
                fail_all(&mut units, &format!("the transaction failed: {fault:?}"));
            }
        }
        for unit in units {
            unit.answer();
        }
    }

    /// Carries everything out in one transaction, with a limit of time. A panic is a bug in one request; it must not take
    /// every later write with it.
    async fn guarded(&mut self, units: &mut [Box<dyn Unit>]) -> std::result::Result<(), Failed> {
        let together = AssertUnwindSafe(self.together(units)).catch_unwind();
        let outcome = match timeout(PATIENCE, together).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failed::Hopeless(Fault::Data(anyhow::anyhow!("a request panicked")))),
            Err(_) => Err(Failed::Hopeless(Fault::TooSlow)),
        };
        if outcome.is_err() {
            self.discard();
        }
        outcome
    }

    async fn together(&mut self, units: &mut [Box<dyn Unit>]) -> std::result::Result<(), Failed> {
        let session = self.begin().await.map_err(Failed::Disconnected)?;
        let mut conn = session.conn();
        for unit in units.iter_mut() {
            unit.run(&mut conn).await.map_err(Failed::before_commit)?;
        }
        match conn.command("COMMIT").await {
            Ok(()) => {
                self.put_back();
                Ok(())
            }
            // Refused, so certainly not committed: one member broke a rule that is checked last.
            Err(fault) if fault.is_refusal() => Err(Failed::Lost(fault)),
            Err(fault) => Err(Failed::Hopeless(fault)),
        }
    }

    /// Every member in a transaction of its own, until the database is gone. `fault` is why the transaction of all of
    /// them was lost, and the answer of a lone member that nobody was in the way of.
    async fn one_by_one(&mut self, units: &mut [Box<dyn Unit>], fault: Fault) {
        let alone = units.iter_mut().map(|unit| unit.prune()).sum::<usize>() == 1;
        if alone && !fault.is_conflict() {
            fail_with(units, fault);
            return;
        }
        tracing::debug!(?fault, "a transaction was lost; trying its members one by one");
        let give_up = Instant::now() + PATIENCE;
        let mut gone = false;
        for unit in units {
            for index in 0..unit.prune() {
                if unit.is_abandoned(index) {
                    continue;
                }
                gone |= Instant::now() >= give_up;
                if gone {
                    let error = anyhow::anyhow!("the connection broke");
                    unit.fail(index, StoreError::Unavailable(error));
                } else {
                    gone = self.apart(unit, index).await;
                }
            }
        }
    }

    /// One request in a transaction of its own; true when the database is gone.
    async fn apart(&mut self, unit: &mut Box<dyn Unit>, index: usize) -> bool {
        for tries in 1.. {
            let outcome = AssertUnwindSafe(timeout(PATIENCE, async {
                let session = self.begin().await?;
                let mut conn = session.conn();
                unit.run_one(&mut conn, index).await?;
                conn.command("COMMIT").await
            }))
            .catch_unwind()
            .await;
            let fault = match outcome {
                Ok(Ok(Ok(()))) => {
                    self.put_back();
                    return false;
                }
                Ok(Ok(Err(fault))) => fault,
                Ok(Err(_)) => Fault::TooSlow,
                Err(_) => Fault::Data(anyhow::anyhow!("a request panicked")),
            };
            self.discard();
            if fault.is_conflict() && tries < TRIES {
                continue;
            }
            let gone = fault.is_disconnected() || fault.is_out_of_reach();
            unit.fail(index, fault.into());
            return gone;
        }
        false
    }

    /// A connection with a transaction that may write at once.
    async fn begin(&mut self) -> Result<&mut Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.source.open().await?,
        };
        let session = self.session.insert(session);
        session.begin().await?;
        Ok(session)
    }

    /// The transaction is over: a pooled connection is for others now.
    fn put_back(&mut self) {
        if self.source.is_pooled() {
            self.session = None;
        }
    }

    /// The transaction has failed: its connection is not used again.
    fn discard(&mut self) {
        if let Some(session) = self.session.take() {
            session.discard();
        }
    }
}

/// Carries out one change in a transaction of its own, beside the writers.
pub(super) async fn alone<W: Write>(source: Source, write: W) -> std::result::Result<W::Out, StoreError> {
    let (reply, answer) = oneshot::channel();
    // On a task of its own: a caller that goes away leaves no half transaction on a pooled connection.
    tokio::spawn(async move {
        let unit: Box<dyn Unit> = Box::new(Group::<Alone<W>>::of(Alone(write), reply));
        Task { source, session: None }.batch(vec![unit]).await;
    });
    let lost = || StoreError::Unavailable(anyhow::anyhow!("the store is closed"));
    answer.await.map_err(|_| lost())?
}

/// Gives the lone member of the units its fault.
fn fail_with(units: &mut [Box<dyn Unit>], fault: Fault) {
    if let Some(unit) = units.iter_mut().find_map(|unit| (unit.prune() > 0).then_some(unit)) {
        unit.fail(0, fault.into());
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
