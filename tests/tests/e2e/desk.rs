//! The operator's desk on the command line: the help alone leads a newcomer through, and every command speaks JSON too.

use serde_json::{Value, json};
use std::path::PathBuf;
use tests::harness::{CliOutput, Client, Server};

use crate::column;

/// A completed picture of `client` whose file somebody has deleted.
async fn charged_without_output(server: &Server, client: &Client) -> String {
    let id = client.submit_quick("lost").await;
    client.wait_for(&id, "completed").await;
    let folder: PathBuf = server.path().join("data/outputs").join(&id);
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    std::fs::remove_file(&files[0]).unwrap();
    id
}

/// The words of a command as a shell reads them, without the name of the program.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in command.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    assert_eq!(words.remove(0), "velro", "{command}");
    words
}

fn run(server: &Server, command: &str) -> CliOutput {
    let words = words(command);
    server.velro(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The first line that contains all of `texts`.
#[track_caller]
fn line<'t>(text: &'t str, texts: &[&str]) -> &'t str {
    let found = text.lines().find(|line| texts.iter().all(|t| line.contains(t)));
    found.unwrap_or_else(|| panic!("no line with {texts:?} in\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_operator_settles_a_charge_without_output_with_nothing_but_help() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let fine = ada.submit_quick("fine").await;
    ada.wait_for(&fine, "completed").await;
    let id = charged_without_output(&server, &ada).await;
    assert_eq!(ada.balance().await, 990);

    // Somebody says that a picture is gone. What does this program have for it?
    let help = server.velro(&["--help"]).ok();
    let group = line(&help, &["what went wrong"])
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(group, "generations");
    let help = server.velro(&[&group, "--help"]).ok();
    let command = line(&help, &["velro", "needs a hand", "next"]).trim();
    let command = command.split("  ").next().unwrap();
    assert_eq!(command, "velro generations problems");
    line(&help, &["charged_without_output", "refund"]);
    let help = run(&server, &format!("{command} --help")).ok();
    line(&help, &["Exit codes: 0"]);

    let problems = run(&server, command);
    assert_eq!(problems.status.code(), Some(1), "something needs a hand");
    let shown = problems.stdout;
    line(&shown, &["charged_without_output", &id, "ada@example.com", "5"]);
    assert!(!shown.contains(&fine), "{shown}");
    let next = line(&shown, &["velro", &id]).trim().to_owned();
    let words = words(&next);
    assert!(words.iter().any(|word| word == "refund"), "{next}");
    let help = server.velro(&[&words[0], &words[1], "--help"]).ok();
    line(&help, &["Give back what was charged"]);

    for _ in 0..3 {
        run(&server, &next).ok();
        assert_eq!(ada.balance().await, 995, "once, however often it runs");
    }
    let statement = ada.statement().await;
    assert_eq!(statement, ["bonus +1000", "usage -5", "usage -5", "refund +5"]);
    let newest = ada.transactions().await.remove(0);
    assert_eq!(newest["generation_id"], id.as_str());
    assert_eq!(newest["description"], "Refund: charged without output");
    let seen = ada.get(&format!("/api/v1/generations/{id}")).await.ok();
    assert_eq!(
        (&seen["credits_used"], &seen["credits_refunded"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(ada.status(&id).await["metadata"]["credits_refunded"], 5);

    let problems = run(&server, command);
    assert_eq!(problems.ok().trim(), "nothing needs a hand");
    let audit: Value =
        serde_json::from_str(&server.velro(&["audit", "list", "--subject", &id, "--json"]).ok()).unwrap();
    assert_eq!(
        column(&audit["items"], "action"),
        ["generation.refund"],
        "one, as it was done once"
    );
    let entry = &audit["items"][0];
    assert!(entry["actor"].as_str().unwrap().starts_with("cli"), "{entry}");
    assert_eq!(entry["reason"], "charged without output");
    assert_eq!(
        (
            &entry["details"]["before"]["refunded"],
            &entry["details"]["after"]["refunded"]
        ),
        (&json!(0), &json!(5))
    );
    server.velro(&["ledger", "verify"]).ok();
}

fn json_of(server: &Server, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let text = server.velro(&args).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_and_every_change_has_a_json_form() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let id = ada.submit_quick("x").await;
    ada.wait_for(&id, "completed").await;

    let sign = ["--reason", "because", "--as", "ann"];
    let signed = |args: &[&'static str]| json_of(&server, &[args, &sign].concat());
    assert_eq!(signed(&["users", "promote", "ada@example.com"])["role"], "operator");
    let last = server
        .velro(&["users", "demote", "ada@example.com", "--reason", "x"])
        .fails();
    assert!(last.contains("last operator") && last.contains("promote"), "{last}");
    assert_eq!(
        signed(&["users", "suspend", "bob@example.com"])["suspended_reason"],
        "because"
    );
    bob.try_submit("sandbox/image", "x", json!({}))
        .await
        .problem(403, "account_suspended");
    bob.get("/api/v1/credits/balance").await.ok();
    let mut again = bob.clone();
    again.login(tests::harness::PASSWORD).await;
    assert_eq!(
        signed(&["users", "unsuspend", "bob@example.com"])["suspended_at"],
        Value::Null
    );
    let corrected = signed(&["credits", "correct", "bob@example.com", "-400"]);
    assert_eq!(
        (&corrected["available"], &corrected["replayed"]),
        (&json!(600), &json!(false))
    );
    let refused = server
        .velro(&["credits", "correct", "bob@example.com", "-601", "--reason", "x"])
        .fails();
    assert!(refused.contains("600"), "{refused}");
    let granted = json_of(&server, &["credits", "grant", "bob@example.com", "5", "--key", "k"]);
    assert_eq!(granted["available"], 605);
    let again = json_of(&server, &["credits", "grant", "bob@example.com", "5", "--key", "k"]);
    assert_eq!((&again["available"], &again["replayed"]), (&json!(605), &json!(true)));
    assert_eq!(json_of(&server, &["credits", "show", "bob@example.com"])["total"], 3);

    let page = json_of(&server, &["users", "list", "--limit", "1"]);
    assert_eq!(column(&page["items"], "email"), ["bob@example.com"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = json_of(&server, &["users", "list", "--limit", "1", "--cursor", cursor]);
    assert_eq!(column(&page["items"], "email"), ["ada@example.com"]);
    assert_eq!(page["next_cursor"], Value::Null);
    let found = json_of(&server, &["users", "list", "BO"]);
    assert_eq!(column(&found["items"], "email"), ["bob@example.com"]);
    assert_eq!(
        json_of(&server, &["users", "show", "bob@example.com"])["balance"]["available"],
        605
    );

    let found = json_of(
        &server,
        &[
            "generations",
            "list",
            "--user",
            "ada@example.com",
            "--status",
            "completed",
        ],
    );
    assert_eq!(column(&found["items"], "id"), [id.as_str()]);
    let file = json_of(&server, &["generations", "show", &id]);
    assert_eq!(
        (&file["attempts"][0]["state"], &file["refunded"]),
        (&json!("finished"), &json!(0))
    );
    let problems = json_of(&server, &["generations", "problems"]);
    for kind in ["unknown", "charged_without_output", "held_too_long"] {
        assert_eq!(problems[kind], json!({"items": [], "next_cursor": null}), "{problems}");
    }

    let code = json_of(
        &server,
        &["codes", "create", "50", "--note", "launch", "--code", "welcome-2027"],
    );
    let code_id = code["id"].as_str().unwrap();
    let said = server
        .velro(&["codes", "create", "5", "--note", "x", "--code", "WELCOME 2027"])
        .fails();
    assert!(said.contains("already"), "{said}");
    server
        .velro(&["codes", "create", "5", "--note", "x", "--code", "short"])
        .fails();
    let answer = bob
        .post("/api/v1/credits/redeem", &json!({"code": " Welcome 2o27 "}))
        .await
        .ok();
    assert_eq!((&answer["credits"], &answer["balance"]), (&json!(50), &json!(655)));
    let shown = json_of(&server, &["codes", "show", code_id]);
    assert_eq!(
        (&shown["uses"], &shown["redemptions"][0]["email"]),
        (&json!(1), &json!("bob@example.com"))
    );
    let ended = json_of(&server, &["codes", "disable", code_id, "--reason", "leaked"]);
    assert_eq!(ended["changed"], true);
    assert_eq!(
        json_of(&server, &["codes", "list"])["items"].as_array().unwrap().len(),
        1
    );

    assert_eq!(json_of(&server, &["queue", "show"])["mode"], "running");
    let providers = json_of(&server, &["providers", "list"]);
    let sandbox = providers["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["provider"] == "sandbox")
        .unwrap();
    assert_eq!(
        (&sandbox["state"], &sandbox["mode"], &sandbox["breaker"]),
        (&json!("ready"), &json!("running"), &json!("closed"))
    );
    let audit = json_of(&server, &["audit", "list", "--actor", "cli:ann", "--limit", "100"]);
    let mut actions = column(&audit["items"], "action");
    actions.reverse();
    assert_eq!(
        actions,
        ["user.role", "user.suspend", "user.unsuspend", "credits.correct"]
    );

    // And for people.
    for args in [
        &["users", "list"][..],
        &["users", "show", "bob@example.com"],
        &["generations", "list"],
        &["generations", "show", &id],
        &["codes", "list"],
        &["codes", "show", code_id],
        &["audit", "list"],
        &["queue", "show"],
        &["providers"],
        &["providers", "list"],
    ] {
        let text = server.velro(args).ok();
        assert!(text.lines().count() > 1, "{args:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_is_listed_and_ended_by_hand_while_the_server_runs() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "slow",
            json!({"latency_ms": 600_000, "image_size": "square"}),
        )
        .await;
    ada.wait_for(&id, "processing").await;
    let problems = server.velro(&["generations", "problems", "--older-than", "0s"]);
    assert_eq!(problems.status.code(), Some(1));
    line(&problems.stdout, &["held_too_long", &id, "processing"]);
    let refused = server.velro(&["generations", "resolve", &id, "--refund"]).fails();
    assert!(refused.contains("--force"), "{refused}");
    let next = line(&problems.stdout, &["velro", "--force", &id]).trim().to_owned();
    run(&server, &next).ok();
    let ended = ada.status(&id).await;
    assert_eq!(
        (&ended["status"], &ended["metadata"]["error_code"]),
        (&json!("failed"), &json!("ended_by_operator"))
    );
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5", "refund +5"]);
    let again = run(&server, &next).fails();
    assert!(again.contains("nothing to resolve"), "{again}");
    // The worker drops it and goes on with others.
    let other = ada.submit_quick("next").await;
    ada.wait_for(&other, "completed").await;
}
