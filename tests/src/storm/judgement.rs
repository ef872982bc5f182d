//! What must hold after a storm: every generation has ended or is an open case, which the operator then closes; whoever
//! pays has the files; nobody pays for anything else; nothing was bought twice.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use super::load::Job;
use crate::fal_sim::SimHandle;
use crate::harness::{Client, Server};

/// Pause between two looks at the generations that have not ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Calls at once.
const AT_ONCE: usize = 16;

/// How the generations ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Number of generations by public status.
    pub ends: BTreeMap<String, usize>,
    /// How many open cases the operator closed.
    pub resolved: usize,
}

impl Tally {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, status: &str) -> usize {
        self.ends.get(status).copied().unwrap_or_default()
    }
}

/// Waits for the end of every generation and checks files, purchases and balances. Everybody began with `credits`; the
/// longest time in which nothing ends is `patience`. `context` is in every message.
///
/// # Panics
/// If anything is wrong.
pub async fn judge(
    context: &str,
    server: &Server,
    people: &[Client],
    credits: i64,
    jobs: &[Job],
    sim: &SimHandle,
    patience: Duration,
) -> Tally {
    let distinct: HashSet<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(distinct.len(), jobs.len(), "{context}: one generation for two submits");
    let mut tally = Tally::default();
    let mut delivered = vec![0; people.len()];
    let mut open: Vec<&Job> = jobs.iter().collect();
    let mut deadline = Instant::now() + patience;
    while !open.is_empty() {
        let looks = stream::iter(open.clone()).map(|job| async move {
            let answer = people[job.person].status(&job.id).await;
            (job, answer)
        });
        let answers: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        let before = open.len();
        open.clear();
        for (job, answer) in answers {
            let status = answer["status"].as_str().unwrap_or_default();
            match status {
                "completed" => {
                    let url = answer["output_urls"][0].as_str().unwrap_or_default();
                    let file = people[job.person].get(url).await.expect(200);
                    assert!(file.bytes.len() > 100, "{context}: {answer}");
                    let used = answer["metadata"]["credits_used"].as_i64();
                    delivered[job.person] += used.unwrap_or_else(|| panic!("{context}: {answer}"));
                }
                "failed" | "cancelled" => {}
                "queued" | "processing" => {
                    open.push(job);
                    continue;
                }
                _ => panic!("{context}: {answer}"),
            }
            *tally.ends.entry(status.to_owned()).or_default() += 1;
        }
        // As long as things move by themselves nobody has to do anything.
        if open.len() < before {
            deadline = Instant::now() + patience;
            continue;
        }
        assert!(
            Instant::now() < deadline,
            "{context}: nothing has ended for {patience:?}: {open:#?}\n{tally:?}"
        );
        tally.resolved += close_cases(server, &open);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    assert_eq!(sim.bought_twice(), [], "{context}");
    for (client, delivered) in people.iter().zip(delivered) {
        let books = server.velro(&["ledger", "verify"]);
        assert_eq!(
            client.balance().await,
            credits - delivered,
            "{context}: {tally:?}\n{}{:#?}",
            books.stdout,
            client.statement().await
        );
    }
    tally
}

/// As an operator who has found nothing at the provider, or does not want to look. Only when all that is left are open
/// cases: the provider's own word comes first.
fn close_cases(server: &Server, open: &[&Job]) -> usize {
    let cases = server.velro(&["generations", "resolve"]).ok();
    if !open.iter().all(|job| cases.contains(&job.id)) {
        return 0;
    }
    let close = |job: &&&Job| {
        // The provider's word may come at this very moment; then there is nothing left to resolve.
        let output = server.velro(&["generations", "resolve", &job.id, "--refund"]);
        output.status.success()
    };
    open.iter().filter(close).count()
}
