//! Backups as docs/BACKUP.md says: taken while people work, restored elsewhere after the machine is gone, with the books in
//! order, the old passwords and tokens, and every picture; and what was in flight is told from what would be bought again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use place::Books;
use reqwest::Method;
use serde_json::json;
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Client, Options, PASSWORD, SOON, Server, eventually, id_of};
use tokio::task::JoinHandle;

/// How many people work while the backup is taken.
const PEOPLE: usize = 4;

/// Pictures that are done before the backup, and so many again after it.
const PICTURES: usize = 8;

fn options() -> Options {
    Options::new().env("DEFAULT_USER_CREDITS", "100000")
}

/// What somebody saw completed before the server was gone, in order.
struct Seen {
    who: Client,
    completed: Vec<String>,
}

/// Submits and waits, again and again, until the server does not answer any more.
async fn work(who: Client, done: Arc<AtomicUsize>) -> Seen {
    let mut completed = Vec::new();
    'server: loop {
        let parameters = json!({"image_size": "square", "latency_ms": 30});
        let Ok(answer) = who
            .try_send(who.submit_request("sandbox/image", "a lighthouse", parameters))
            .await
        else {
            break;
        };
        let id = id_of(&answer.ok());
        loop {
            let status = who.request(Method::GET, &format!("/api/v1/generations/async/{id}/status"));
            let Ok(answer) = who.try_send(status).await else {
                break 'server;
            };
            if answer.ok()["status"] == "completed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        completed.push(id);
        done.fetch_add(1, Ordering::Relaxed);
    }
    Seen { who, completed }
}

/// Waits until so many pictures are done.
async fn until(done: &AtomicUsize, wanted: usize) {
    eventually("enough pictures", SOON * 3, || async {
        (done.load(Ordering::Relaxed) >= wanted).then_some(())
    })
    .await;
}

/// Loads the picture of a completed generation.
async fn load_picture(who: &Client, status: &serde_json::Value) {
    let url = status["output_urls"][0]
        .as_str()
        .unwrap_or_else(|| panic!("no picture: {status}"));
    let picture = who.without_token().get(url).await.expect(200);
    let is_picture = picture.header("content-type").starts_with("image/");
    assert!(
        is_picture && picture.bytes.len() > 200,
        "{url}: {} bytes",
        picture.bytes.len()
    );
}

/// The same person with the same token at another server.
fn at(server: &Server, who: &Client) -> Client {
    let mut who = who.clone();
    who.base_url.clone_from(&server.base_url);
    who
}

/// Everything, for one kind of installation.
async fn backed_up_under_traffic_and_restored(books: Books) {
    let mut live = Server::with(books.options(options())).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut people: Vec<JoinHandle<Seen>> = Vec::new();
    for number in 0..PEOPLE {
        let who = live.register(&format!("person-{number}")).await;
        people.push(tokio::spawn(work(who, Arc::clone(&done))));
    }
    until(&done, PICTURES).await;
    let before = done.load(Ordering::Relaxed);
    let backup = books.back_up(&live.path().join("data")).await;
    let after = done.load(Ordering::Relaxed);
    until(&done, after + PICTURES).await;
    live.kill9();
    let seen: Vec<Seen> = join_all(people).await.into_iter().map(Result::unwrap).collect();
    let open = live.verify_ledger().unwrap();
    live.change(|options| options.open_holds(open));

    let place = books.another().await.restore(&backup);
    place.velro(&["ledger", "verify"]);
    place.velro(&["queue", "pause", "--reason", "restored from a backup"]);
    let restored = Server::with(place.options(options())).await;
    let (mut loaded, mut younger) = (0, 0);
    for person in &seen {
        let mut who = at(&restored, &person.who);
        who.get("/api/v1/auth/me").await.expect(200);
        who.login(PASSWORD).await;
        for id in &person.completed {
            let answer = who.get(&format!("/api/v1/generations/async/{id}/status")).await;
            if answer.status == 404 {
                younger += 1;
                continue;
            }
            let status = answer.ok();
            if status["status"] == "completed" {
                load_picture(&who, &status).await;
                loaded += 1;
            }
        }
    }
    assert!(
        loaded >= before,
        "{before} pictures were done before the backup, and {loaded} are in it"
    );
    assert!(
        younger > 0,
        "nothing was younger than the backup: it was taken too late to prove anything"
    );

    restored.velro(&["queue", "resume", "--reason", "looked through"]).ok();
    eventually("all that was in flight ends", SOON * 2, || async {
        (restored.verify_ledger().unwrap() == 0).then_some(())
    })
    .await;
    for person in &seen {
        let mut who = at(&restored, &person.who);
        who.login(PASSWORD).await;
        for generation in who.generations().await {
            assert_eq!(generation["status"], "completed", "{generation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_installation_comes_back_from_a_backup_that_was_taken_under_traffic() {
    backed_up_under_traffic_and_restored(Books::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_over_postgresql_comes_back_from_a_backup_that_was_taken_under_traffic() {
    backed_up_under_traffic_and_restored(Books::new_postgres().await).await;
}

/// An older backup does not know what was bought since. Under a pause what was accepted is asked about and not bought
/// again; what was queued waits, and the operator says of each whether it is given up or bought a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_in_an_older_backup_waits_for_the_operator_and_what_was_bought_is_asked_about() {
    let settings = Settings {
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let fal = sim.handle();
    let model = "fal-ai/flux-pro/v1.1-ultra";
    // One at a time, so that two wait.
    let options = options().fal(&sim).edit_registry(|registry| {
        for limit in ["concurrency", "concurrency_per_user"] {
            registry["providers"]["fal"][limit] = 1.into();
        }
    });

    let books = Books::Embedded;
    let mut live = Server::with(books.options(options.clone())).await;
    let ada = live.register("ada").await;
    let accepted = ada.submit(model, "accepted", json!({})).await;
    eventually("the acceptance is stored", SOON, || async {
        let shown = live.velro(&["generations", "show", &accepted, "--json"]).ok();
        shown.contains("\"accepted\"").then_some(())
    })
    .await;
    let given_up = ada.submit(model, "given up", json!({})).await;
    let bought_again = ada.submit(model, "bought again", json!({})).await;
    let backup = books.back_up(&live.path().join("data")).await;

    // The history that the backup does not know: all three are bought, delivered and charged.
    for (number, id) in [&accepted, &given_up, &bought_again].into_iter().enumerate() {
        let requests = fal
            .wait_for(SOON, |requests| requests.len() == number + 1)
            .await
            .unwrap();
        fal.finish_job(&requests[number].request_id).unwrap();
        ada.wait_for(id, "completed").await;
    }
    live.kill9();

    let place = books.another().await.restore(&backup);
    place.velro(&["queue", "pause", "--reason", "restored from a backup"]);
    let restored = Server::with(place.options(options)).await;
    let ada = at(&restored, &ada);
    load_picture(&ada, &ada.wait_for(&accepted, "completed").await).await;
    for id in [&given_up, &bought_again] {
        assert_eq!(ada.status(id).await["status"], "queued");
    }
    let queued = restored
        .velro(&["generations", "list", "--status", "queued", "--json"])
        .ok();
    assert!(queued.contains(&given_up) && queued.contains(&bought_again), "{queued}");
    let balance = ada.balance().await;
    let give_up = [
        "generations",
        "resolve",
        &given_up,
        "--refund",
        "--force",
        "--reason",
        "was delivered before the restore",
    ];
    restored.velro(&give_up).ok();
    assert_eq!(ada.status(&given_up).await["status"], "failed");
    assert!(ada.balance().await > balance, "the credits are back");
    assert_eq!(fal.requests().len(), 3, "nothing was bought under the pause");

    restored.velro(&["queue", "resume", "--reason", "looked through"]).ok();
    let all = fal.wait_for(SOON, |requests| requests.len() == 4).await.unwrap();
    fal.finish_job(&all[3].request_id).unwrap();
    load_picture(&ada, &ada.wait_for(&bought_again, "completed").await).await;
    let twice = fal.bought_twice();
    assert!(
        twice.len() == 1 && twice[0].correlation == "bought again",
        "only what the operator let go on was bought twice: {twice:?}"
    );
}

/// What had been begun and not sent when the backup was taken may have been sent since: it waits like what is queued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_about_to_be_sent_in_an_older_backup_waits_for_the_operator_too() {
    let settings = Settings::default();
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let fal = sim.handle();
    let model = "fal-ai/flux-pro/v1.1-ultra";
    let options = options().fal(&sim);
    let stopped = options.clone().env("FAILPOINTS", "worker::prepared=return");
    let mut live = Server::with(Books::Embedded.options(stopped)).await;
    let ada = live.register("ada").await;
    let prepared = ada.submit(model, "about to be sent", json!({})).await;
    live.wait_for_failpoint("worker::prepared", SOON).await;
    let backup = Books::Embedded.back_up(&live.path().join("data")).await;
    live.kill9();
    live.change(|options| options.without_env("FAILPOINTS").open_holds(1));

    let place = Books::Embedded.restore(&backup);
    place.velro(&["queue", "pause", "--reason", "restored from a backup"]);
    let restored = Server::with(place.options(options)).await;
    let ada = at(&restored, &ada);
    restored.wait_for_log(0, "resuming", SOON).await;
    // Whatever may begin does: the worker has stepped what it has resumed by the time that a later submit is answered.
    let later = ada.submit(model, "later", json!({})).await;
    assert_eq!(ada.status(&later).await["status"], "queued");
    let shown = restored.velro(&["generations", "show", &prepared, "--json"]).ok();
    assert!(shown.contains("\"prepared\""), "{shown}");
    assert_eq!(fal.requests().len(), 0, "it was sent under the pause");
    restored.velro(&["queue", "resume", "--reason", "looked through"]).ok();
    for id in [&prepared, &later] {
        ada.wait_for(id, "completed").await;
    }
    assert_eq!(fal.requests().len(), 2);
}
