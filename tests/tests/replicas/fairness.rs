//! One busy user does not starve the others, also when the queue is shared by processes.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::harness::{Client, Cluster, ClusterOptions, Options, Role, eventually};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const BUSY_JOBS: usize = 1000;
const OTHERS: usize = 20;

/// The others end before the busy user's job of this number.
const FIFTIETH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_small_users_do_not_wait_for_a_thousand_jobs_of_a_busy_one() {
    let four_at_a_time = |registry: &mut toml::Table| {
        let sandbox = registry["providers"]["sandbox"].as_table_mut().unwrap();
        sandbox.insert("concurrency".into(), 4.into());
        sandbox.insert("concurrency_per_user".into(), 4.into());
    };
    let layout = ClusterOptions::new(&[Role::Api, Role::Worker]);
    let mut cluster = Cluster::start(layout.options(Options::new().edit_registry(four_at_a_time))).await;
    // All of them are queued before the first one begins; the API takes them without a worker.
    cluster.replica_mut(1).terminate();
    let busy = cluster.api().register("busy").await;
    cluster.api().grant(&busy, 10_000);
    let submits = stream::iter(0..BUSY_JOBS).map(|number| submit(&busy, number));
    let ids = submits.buffer_unordered(8).collect::<Vec<_>>().await;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let client = cluster.api().register(&format!("other{number}")).await;
        submit(&client, number).await;
        others.push(client);
    }
    cluster.replica_mut(1).restart().await;

    let mut last = OffsetDateTime::UNIX_EPOCH;
    for client in &others {
        last = last.max(end(client).await);
    }
    // What is left of the thousand is not waited for: its owner has had enough.
    let cancels = stream::iter(&ids).map(|id| busy.cancel(id));
    cancels.buffer_unordered(8).collect::<Vec<_>>().await;
    let before = ends(&busy).await.into_iter().filter(|end| *end <= last).count();
    assert!(
        before < FIFTIETH,
        "{before} jobs of the busy user ended before the last of the others"
    );
}

async fn submit(client: &Client, number: usize) -> String {
    let parameters = json!({"image_size": "square", "latency_ms": 0});
    client
        .submit("sandbox/image", &format!("fair {number}"), parameters)
        .await
}

/// When a person's one generation was completed.
async fn end(client: &Client) -> OffsetDateTime {
    eventually("the job of a small user ends", Duration::from_secs(120), || async {
        let page = client.get("/api/v1/generations").await.ok();
        completed_at(&page[0])
    })
    .await
}

/// When each of a person's generations was completed that was not cancelled, once all are over.
async fn ends(client: &Client) -> Vec<OffsetDateTime> {
    eventually(
        "all jobs of the busy user are over",
        Duration::from_secs(60),
        || async {
            let mut all = Vec::new();
            for skip in (0..BUSY_JOBS).step_by(100) {
                let page = client
                    .get(&format!("/api/v1/generations?limit=100&skip={skip}"))
                    .await
                    .ok();
                all.extend(page.as_array()?.iter().cloned());
            }
            let over = |g: &Value| ["completed", "cancelled"].contains(&g["status"].as_str().unwrap_or_default());
            all.iter().all(over).then(|| {
                all.iter()
                    .filter_map(|g| (g["status"] == "completed").then(|| completed_at(g)).flatten())
                    .collect()
            })
        },
    )
    .await
}

fn completed_at(generation: &Value) -> Option<OffsetDateTime> {
    let text = generation["completed_at"].as_str()?;
    Some(OffsetDateTime::parse(text, &Rfc3339).unwrap_or_else(|error| panic!("{text}: {error}")))
}
