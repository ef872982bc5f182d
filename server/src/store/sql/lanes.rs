//! Who carries out which change: one writer for everything in SQLite; in PostgreSQL writers by kind, and everything that
//! has no bulk form on its own.
//!
//! Kinds do not share a transaction in PostgreSQL: each takes its locks in the same order (generation, attempt, lease,
//! account, each by id), which a transaction of several kinds could not. Submits of one user pass through one writer, so
//! that a process spends them in the order in which they arrived, and steps of one attempt too.

use tokio::sync::Semaphore;
use uuid::Uuid;

use super::postgres::CONNECTIONS;
use super::session::Source;
use super::writer::{self, BulkWrite, Write, Writer};
use crate::store::{BeginAttempt, Connections, NewGeneration, Result, SaveStep, Saved, Settle, Settled, Submitted};

/// See the [module](self).
pub(super) enum Lanes {
    /// Everything through one.
    One(Writer),
    /// By kind.
    ByKind(Box<ByKind>),
}

pub(super) struct ByKind {
    submits: [Writer; 2],
    begins: Writer,
    steps: [Writer; 2],
    settles: Writer,
    source: Source,
    /// Room on the pool for changes on their own, so that they cannot keep the writers waiting.
    alone: Semaphore,
}

/// Changes on their own at once; the writers need the rest of the pool.
const ALONE: usize = CONNECTIONS as usize - 6;

impl Lanes {
    pub(super) fn one(source: Source) -> Lanes {
        Lanes::One(Writer::start(source))
    }

    pub(super) fn by_kind(source: Source) -> Lanes {
        let writer = || Writer::start(source.clone());
        Lanes::ByKind(Box::new(ByKind {
            submits: [writer(), writer()],
            begins: writer(),
            steps: [writer(), writer()],
            settles: writer(),
            source,
            alone: Semaphore::new(ALONE),
        }))
    }

    /// Carries out a change without a bulk form.
    pub(super) async fn run<W: Write>(&self, write: W) -> Result<W::Out> {
        match self {
            Lanes::One(writer) => writer.run(write).await,
            Lanes::ByKind(by) => {
                // It is never closed, and with or without a place the pool decides.
                let _place = by.alone.acquire().await;
                writer::alone(by.source.clone(), write).await
            }
        }
    }

    pub(super) async fn submit(&self, new: NewGeneration) -> Result<Submitted> {
        let writer = match self {
            Lanes::One(writer) => writer,
            Lanes::ByKind(by) => choose(&by.submits, new.user_id.uuid()),
        };
        writer.submit(new).await
    }

    pub(super) async fn begin(&self, begin: BeginAttempt) -> Result<<BeginAttempt as BulkWrite>::Out> {
        let writer = match self {
            Lanes::One(writer) => writer,
            Lanes::ByKind(by) => &by.begins,
        };
        writer.begin(begin).await
    }

    pub(super) async fn step(&self, step: SaveStep) -> Result<Saved> {
        let writer = match self {
            Lanes::One(writer) => writer,
            Lanes::ByKind(by) => choose(&by.steps, step.attempt_id.uuid()),
        };
        writer.step(step).await
    }

    pub(super) async fn settle(&self, settle: Settle) -> Result<Settled> {
        let writer = match self {
            Lanes::One(writer) => writer,
            Lanes::ByKind(by) => &by.settles,
        };
        writer.settle(settle).await
    }

    /// The pool that the writers share; SQLite's one writer has a connection of its own.
    pub(super) fn connections(&self) -> Option<Connections> {
        match self {
            Lanes::ByKind(by) => match &by.source {
                Source::Postgres { pool, .. } => {
                    Some(Connections::of("write", pool.num_idle(), pool.size(), CONNECTIONS))
                }
                Source::Sqlite(_) => None,
            },
            Lanes::One(_) => None,
        }
    }

    /// Finishes what waits.
    pub(super) async fn close(&self) {
        match self {
            Lanes::One(writer) => writer.close().await,
            Lanes::ByKind(by) => {
                for writer in by.submits.iter().chain(&by.steps).chain([&by.begins, &by.settles]) {
                    writer.close().await;
                }
                if let Source::Postgres { pool, .. } = &by.source {
                    pool.close().await;
                }
            }
        }
    }
}

/// The same one for the same id; the end of a version 7 id is random.
fn choose(writers: &[Writer; 2], id: Uuid) -> &Writer {
    &writers[usize::from(id.as_bytes()[15] & 1)]
}
