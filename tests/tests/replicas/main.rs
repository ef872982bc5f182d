//! Several `velro` processes over one PostgreSQL and one Redis: what one replica begins another one continues, and
//! nothing is lost whatever dies underneath. `make storm` runs the long version of [`storm`] and [`outages`].

#![allow(clippy::unwrap_used, clippy::panic)]

mod across;
mod fairness;
mod handover;
mod outages;
mod paused;
mod stops;
mod storm;
mod traces;
mod upgrade;

use tests::harness::{Client, Cluster, ClusterOptions, Role};

/// The same person at another replica.
fn at(cluster: &Cluster, replica: usize, client: &Client) -> Client {
    let mut client = client.clone();
    client.base_url.clone_from(&cluster.replica(replica).base_url);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_on_an_empty_database_all_become_ready() {
    let layout = ClusterOptions::new(&[Role::All, Role::All, Role::Worker]);
    let cluster = Cluster::start(layout.at_once()).await;
    // Whoever made the schema, it is one: a person of one replica is a person of the other.
    let ada = cluster.api().register("ada").await;
    let there = at(&cluster, 1, &ada);
    let id = there.submit_quick("from the other side").await;
    let done = ada.wait_for(&id, "completed").await;
    let file = ada.get(done["output_urls"][0].as_str().unwrap()).await.expect(200);
    assert!(file.bytes.starts_with(b"\x89PNG"));
    assert_eq!(there.balance().await, ada.balance().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_tells_of_its_health_and_numbers() {
    let cluster = Cluster::start(ClusterOptions::new(&[Role::Api, Role::Worker])).await;
    for number in 0..2 {
        let anybody = cluster.replica(number).anonymous();
        anybody.get("/health").await.expect(200);
        anybody.get("/health/ready").await.expect(200);
        let metrics = anybody.get("/metrics").await.expect(200).text();
        assert!(metrics.contains("velro_"), "{metrics}");
    }
    // Who works does not talk to clients.
    let worker = cluster.replica(1).anonymous();
    worker.get("/api/v1/models").await.expect(404);
}
