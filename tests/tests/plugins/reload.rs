//! A library is replaced on a running server. What ten thousand reloads cost is in `plugin_reloads.rs`.

use serde_json::json;
use std::fs;
use tests::harness::{SOON, Server, eventually};
use tests::libraries::{PluginFolder, add, built, options, table};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_taken_up_while_jobs_of_the_old_one_finish() {
    let plugins = PluginFolder::new();
    let code = fs::read(built("velro-zoo")).unwrap();
    let old = plugins.install_bytes(&code, "zoo.so");
    let more = "config = { waits = 8, wait_ms = 250 }";
    let server =
        Server::with(options(&plugins).edit_registry(|registry| add(registry, "zoo", &old, table(more)))).await;
    let ada = server.register("ada").await;
    let running = ada.submit("zoo/pixel", "old", json!({})).await;
    ada.wait_for(&running, "processing").await;
    let metric = async |state: &str| {
        let text = ada.get("/metrics").await.expect(200).text();
        let line = format!("velro_plugin_libraries{{state=\"{state}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line).map(str::to_owned))
    };

    // A wrong pin is refused, and everything stays as it was.
    let new = plugins.install_bytes(&[&code[..], b"2"].concat(), "zoo.so");
    let text = fs::read_to_string(server.registry_path()).unwrap();
    fs::write(server.registry_path(), text.replace(&old.sha256, &"1".repeat(64))).unwrap();
    server.wait_for_log(0, "is not the pinned library", SOON).await;
    let from = server.log_lines();
    fs::write(server.registry_path(), text.replace(&old.sha256, &new.sha256)).unwrap();
    server.wait_for_log(from, "the registry was reloaded", SOON).await;
    let also = ada.submit("zoo/pixel", "new", json!({})).await;
    for id in [running, also] {
        let ended = ada.wait_until_terminal(&id).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    eventually("the libraries are counted", SOON, || async {
        let seen = (metric("active").await?, metric("retired").await?);
        (seen == ("1".into(), "1".into())).then_some(())
    })
    .await;
}
