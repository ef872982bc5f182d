//! What an operator stops is stopped in every process, and stays so while the database is away.

use serde_json::json;
use std::time::Duration;
use tests::harness::{Client, Cluster, ClusterOptions, Options, Role, SOON, eventually};
use tests::services::Persistence;

/// Waits until the process of this client says that of its queue.
async fn knows(anybody: &Client, queue: &str) {
    eventually(&format!("{} knows: {queue}", anybody.base_url), SOON, || async {
        (anybody.get("/health").await.ok()["queue"] == queue).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_in_every_process_and_while_the_database_is_away() {
    let options = Options::new().env("OPERATOR_EMAILS", "boss@example.com");
    let layout = ClusterOptions::new(&[Role::Api, Role::Worker, Role::Worker]);
    let mut cluster = Cluster::start(layout.options(options).own_services(Persistence::None)).await;
    let boss = cluster.api().register("boss").await;
    let ada = cluster.api().register("ada").await;
    let everybody: Vec<Client> = (0..3).map(|number| cluster.replica(number).anonymous()).collect();
    let set = |mode: &'static str| {
        let body = json!({"mode": mode, "reason": "moving the storage"});
        let boss = boss.clone();
        async move { boss.put("/api/v1/operator/pauses/queue", &body).await.ok() }
    };
    set("paused").await;
    for anybody in &everybody {
        knows(anybody, "paused").await;
    }
    let id = ada.submit_quick("waits").await;

    // The database goes away: nobody knows better, so nobody begins.
    let before: Vec<usize> = (0..3).map(|number| cluster.replica(number).log_lines()).collect();
    cluster.own().to_postgres.refuse().await;
    for number in 0..3 {
        let replica = cluster.replica(number);
        let line = "what operators have set; the last known state stays";
        replica
            .wait_for_log(before[number], line, Duration::from_secs(60))
            .await;
        knows(&everybody[number], "paused").await;
    }
    cluster.own().to_postgres.accept().await;
    eventually("the API has its database again", Duration::from_secs(60), || async {
        everybody[0]
            .get("/health/ready")
            .await
            .status
            .is_success()
            .then_some(())
    })
    .await;
    assert_eq!(ada.status(&id).await["status"], "queued");
    set("running").await;
    for anybody in &everybody {
        knows(anybody, "running").await;
    }
    ada.wait_for(&id, "completed").await;
}
