//! A worker that is told to stop hands its work over at once; nobody waits until its leases run out.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Cluster, ClusterOptions, FAL_KEY, Options, Role, SOON};

const PEOPLE: usize = 3;
const JOBS_EACH: usize = 4;

/// How long nobody may look after a job.
const HANDOVER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_terminated_worker_hands_its_jobs_to_the_other_one_within_two_seconds() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let layout = ClusterOptions::new(&[Role::Api, Role::Worker, Role::Worker]);
    let mut cluster = Cluster::start(layout.options(Options::new().fal(&sim))).await;
    let mut ids = Vec::new();
    for person in 0..PEOPLE {
        let client = cluster.api().register(&format!("user{person}")).await;
        for number in 0..JOBS_EACH {
            let prompt = format!("handed over {person} {number}");
            let id = client.submit("fal-ai/imagen4/preview/ultra", &prompt, json!({})).await;
            ids.push((client.clone(), id));
        }
    }
    let all_are_polled = |requests: &[tests::fal_sim::RequestRecord]| {
        requests.len() == PEOPLE * JOBS_EACH && requests.iter().all(|request| request.counts.status > 0)
    };
    sim.wait_for(SOON, all_are_polled).await.unwrap();

    // Whoever has which jobs: after the first stop the second worker has all, after the second stop the first one.
    for (stopped, restarted) in [(1, true), (2, false)] {
        let (since, before) = (Instant::now(), sim.requests());
        cluster.replica_mut(stopped).terminate();
        let resumed = |requests: &[tests::fal_sim::RequestRecord]| {
            let mut pairs = requests.iter().zip(&before);
            pairs.all(|(now, before)| now.counts.status > before.counts.status)
        };
        let waited = sim.wait_for(HANDOVER, resumed).await;
        waited.unwrap_or_else(|error| panic!("worker {stopped} stopped {:?} ago: {error:#}", since.elapsed()));
        if restarted {
            cluster.replica_mut(stopped).restart().await;
        }
    }
    for request in sim.requests() {
        sim.finish_job(&request.request_id).unwrap();
    }
    for (client, id) in &ids {
        client.wait_for(id, "completed").await;
    }
    assert_eq!(sim.requests().len(), PEOPLE * JOBS_EACH);
    cluster.replica_mut(2).restart().await;
}
