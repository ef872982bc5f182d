//! SIGTERM under load, as a rolling update does it: no request fails, what was in hand goes on elsewhere at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tests::harness::{Client, Cluster, ClusterOptions, Options, Role, eventually};

/// How long a stop may take in all.
const GRACE: Duration = Duration::from_secs(10);

/// How often the load balancer of the test looks whether a replica is ready.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What the load balancer knows of one replica.
struct Backend {
    base_url: String,
    ready: AtomicBool,
}

/// Probes like a load balancer: one that is not ready gets no new requests.
async fn probe(backend: Arc<Backend>) {
    let client = Client::anonymous(&backend.base_url);
    let mut tick = tokio::time::interval(PROBE_EVERY);
    loop {
        tick.tick().await;
        let request = client.request(reqwest::Method::GET, "/health/ready");
        let ready = matches!(client.try_send(request).await, Ok(reply) if reply.status == 200);
        backend.ready.store(ready, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_fails_no_request_and_hands_everything_over() {
    let options = Options::new()
        .env("VELRO_SHUTDOWN_DELAY_SECONDS", "2")
        .env("VELRO_SHUTDOWN_GRACE_SECONDS", GRACE.as_secs().to_string());
    let mut cluster = Cluster::start(ClusterOptions::new(&[Role::All, Role::All]).options(options)).await;
    let ada = cluster.api().register("ada").await;
    cluster.api().grant(&ada, 100_000);
    let backends: Vec<Arc<Backend>> = (0..2)
        .map(|n| {
            Arc::new(Backend {
                base_url: cluster.replica(n).base_url.clone(),
                ready: AtomicBool::new(true),
            })
        })
        .collect();
    let probes: Vec<_> = backends.iter().map(|b| tokio::spawn(probe(Arc::clone(b)))).collect();

    // Long jobs, so that the replica that stops has some in hand.
    let mut long = Vec::new();
    for n in 0..6 {
        let slow = serde_json::json!({"latency_ms": 6000});
        long.push(ada.submit("sandbox/image", &format!("slow {n}"), slow).await);
    }
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|n: usize| {
            let (backends, stop, served) = (backends.clone(), Arc::clone(&stop), Arc::clone(&served));
            let token = ada.token().to_owned();
            tokio::spawn(async move {
                // Connections are kept, as browsers and proxies do.
                let clients: Vec<Client> = backends
                    .iter()
                    .map(|b| Client::anonymous(&b.base_url).with_token(&token))
                    .collect();
                let (mut failures, mut ids) = (Vec::new(), Vec::new());
                let mut turn = n;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let ready: Vec<usize> = (0..2).filter(|n| backends[*n].ready.load(Ordering::Relaxed)).collect();
                    let client = &clients[ready[turn % ready.len()]];
                    let is_submit = turn.is_multiple_of(40);
                    let request = match is_submit {
                        true => client.submit_request("sandbox/image", "quick", serde_json::json!({})),
                        false => client.request(reqwest::Method::GET, "/api/v1/credits/balance"),
                    };
                    match client.try_send(request).await {
                        Ok(reply) if reply.status == 200 => {
                            served.fetch_add(1, Ordering::Relaxed);
                            if is_submit {
                                ids.push(reply.json()["generation_id"].as_str().unwrap_or_default().to_owned());
                            }
                        }
                        Ok(reply) => failures.push(format!("{}: {}", reply.status, reply.text())),
                        Err(error) => failures.push(format!("{error:#}")),
                    }
                }
                (failures, ids)
            })
        })
        .collect();
    let flowing = || async { (served.load(Ordering::Relaxed) > 50).then_some(()) };
    eventually("requests flow", Duration::from_secs(20), flowing).await;

    let began = Instant::now();
    tokio::task::block_in_place(|| cluster.replica_mut(0).terminate());
    let took = began.elapsed();
    let at_the_end = served.load(Ordering::Relaxed);
    let flowing = || async { (served.load(Ordering::Relaxed) > at_the_end + 20).then_some(()) };
    eventually("the other one serves on", Duration::from_secs(20), flowing).await;
    stop.store(true, Ordering::Relaxed);
    let mut quick = Vec::new();
    for worker in load {
        let (failures, ids) = worker.await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        quick.extend(ids);
    }
    assert!(took >= Duration::from_secs(2) && took < GRACE, "{took:?}");
    let log = cluster.replica(0).log_text();
    assert!(
        log.contains("worker drained") && !log.contains("the grace is over"),
        "{log}"
    );

    // Nothing waits for a lease to run out, and nothing is lost.
    let other = Client::anonymous(&cluster.replica(1).base_url).with_token(ada.token());
    for id in long.iter().chain(&quick) {
        other.wait_long(id, Duration::from_secs(25)).await;
    }
    let done = other.status(&long[0]).await;
    assert_eq!(done["status"], "completed", "{done}");
    probes.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.replica_mut(0).restart().await;
}
