//! What the process under test prints, line by line, for waiting and for the report of a failed test.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

/// The lines of both output streams, in order of arrival.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
}

impl Logs {
    pub(super) fn new() -> Self {
        Self {
            lines: Arc::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Reads `source` to its end in a thread of its own.
    pub(super) fn follow(&self, source: impl Read + Send + 'static) {
        let logs = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                logs.push(String::from_utf8_lossy(&line).into_owned());
            }
        });
    }

    pub(super) fn push(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits for a line at or after `from` that contains `text`.
    pub(super) async fn wait_for(&self, from: usize, text: &str, patience: Duration) -> Result<String> {
        let mut count = self.count.subscribe();
        let find = || self.all().into_iter().skip(from).find(|line| line.contains(text));
        tokio::time::timeout(patience, async {
            loop {
                if let Some(line) = find() {
                    return Ok(line);
                }
                count.changed().await.context("nobody writes the log any more")?;
            }
        })
        .await
        .with_context(|| format!("no line with `{text}` within {patience:?}"))?
    }
}
