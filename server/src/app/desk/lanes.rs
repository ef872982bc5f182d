//! `velro queue` and `velro providers`: what operators have stopped, and how the providers are doing.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::table::{ago, short, table};
use super::{Desk, by, print_json, view};
use crate::catalog::Registry;
use crate::cli::breakers;
use crate::cli::lanes::{ProvidersArgs, ProvidersCommand, QueueCommand, StopArgs};
use crate::clock;
use crate::pause::{Mode, Pause, Scope};
use crate::provider::ProviderShelf;
use crate::store::SetPause;

impl Desk<'_> {
    pub(super) async fn queue(&self, command: QueueCommand) -> Result<()> {
        match command {
            QueueCommand::Show { json } => self.show_queue(json).await,
            QueueCommand::Pause(stop) => self.stop(Scope::Queue, Mode::Paused, &stop).await,
            QueueCommand::Drain(stop) => self.stop(Scope::Queue, Mode::Draining, &stop).await,
            QueueCommand::Resume(stop) => self.stop(Scope::Queue, Mode::Running, &stop).await,
        }
    }

    pub(super) async fn providers(&self, args: ProvidersArgs) -> Result<()> {
        let (provider, mode, stop) = match args.command {
            None => return self.list_providers(args.json).await,
            Some(ProvidersCommand::List { json }) => return self.list_providers(json).await,
            Some(ProvidersCommand::Pause { provider, stop }) => (provider, Mode::Paused, stop),
            Some(ProvidersCommand::Drain { provider, stop }) => (provider, Mode::Draining, stop),
            Some(ProvidersCommand::Resume { provider, stop }) => (provider, Mode::Running, stop),
        };
        match Registry::from_file(&self.config.providers_path, clock::now()) {
            // What is not in the registry any more may still be let run.
            Ok(registry) if mode != Mode::Running && !registry.providers.contains_key(&provider) => {
                let names: Vec<&str> = registry.providers.keys().map(String::as_str).collect();
                bail!(
                    "the registry has no provider `{provider}`; it has: {}",
                    names.join(", ")
                );
            }
            Ok(_) => {}
            // In an emergency nobody mends a file first: servers go on with the one before, and so do stops.
            Err(_) if stop.sign.json => {}
            Err(_) => println!(
                "{} cannot be read (`velro check` says why): whether it has a provider `{provider}` is not checked",
                self.config.providers_path.display()
            ),
        }
        self.stop(Scope::Provider(provider), mode, &stop).await
    }

    async fn stop(&self, scope: Scope, mode: Mode, stop: &StopArgs) -> Result<()> {
        let set = SetPause {
            scope: scope.clone(),
            mode,
            by: by(&stop.sign, &stop.reason),
        };
        let before = self.store.set_pause(set).await?;
        if stop.sign.json {
            return print_json(&json!({
                "scope": scope.to_string(), "mode": mode.as_str(), "before": before.as_str(),
            }));
        }
        println!(
            "{scope} is {} now (it was {}); every process hears of it within seconds",
            mode.as_str(),
            before.as_str()
        );
        Ok(())
    }

    async fn show_queue(&self, json: bool) -> Result<()> {
        let pauses = self.store.pauses().await?;
        let counts = self.store.system_counts(clock::now()).await?;
        let queue = pauses.iter().find(|pause| pause.scope == Scope::Queue);
        let count = |status: &str| counts.by_status.get(status).copied().unwrap_or(0);
        if json {
            return print_json(&json!({
                "mode": queue.map_or(Mode::Running, |p| p.mode).as_str(), "pause": queue.map(view::pause),
                "queued": count("queued"), "processing": count("processing"),
                "oldest_queued_at": counts.oldest_queued_at.map(|t| t.rfc3339()), "held_credits": counts.held,
                "unknown_attempts": counts.unknown_attempts,
            }));
        }
        let now = clock::now();
        println!("queue       {}", mode_text(queue, now));
        let oldest = counts
            .oldest_queued_at
            .map(|t| format!(", the oldest submitted {}", ago(t, now)));
        println!("queued      {}{}", count("queued"), oldest.unwrap_or_default());
        println!("processing  {}", count("processing"));
        println!("unknown     {}", counts.unknown_attempts);
        println!("held        {} credits", counts.held);
        Ok(())
    }

    async fn list_providers(&self, json: bool) -> Result<()> {
        let config = self.config;
        let registry = Registry::from_file(&config.providers_path, clock::now())?;
        let shelf = ProviderShelf::load(config, &registry).context("cannot load the providers")?;
        let pauses: BTreeMap<String, Pause> = self
            .store
            .pauses()
            .await?
            .into_iter()
            .map(|pause| (pause.scope.to_string(), pause))
            .collect();
        let asked = breakers::ask(&config.metrics_url()).await;
        let breaker = |name: &str| asked.as_ref().and_then(|found| found.get(name)).map(|b| b.as_str());
        let state = |name: &str| match (registry.is_enabled(name), shelf.get(name).map(|p| p.not_ready.clone())) {
            (false, _) => ("switched_off", None),
            (true, Some(Some(why))) => ("not_ready", Some(why)),
            (true, _) => ("ready", None),
        };
        let of = |name: &str| pauses.get(&format!("provider:{name}"));
        if json {
            let items: Vec<Value> = registry
                .providers
                .keys()
                .map(|name| {
                    let (word, why) = state(name);
                    json!({
                        "provider": name, "state": word, "not_ready": why,
                        "mode": of(name).map_or(Mode::Running, |p| p.mode).as_str(),
                        "pause": of(name).map(view::pause), "breaker": breaker(name),
                    })
                })
                .collect();
            return print_json(&json!({
                "items": items, "next_cursor": null, "queue": pauses.get("queue").map(view::pause),
                "breakers_from": asked.as_ref().map(|_| config.local_url()),
            }));
        }
        let now = clock::now();
        let rows: Vec<_> = registry
            .providers
            .keys()
            .map(|name| {
                let (word, why) = state(name);
                vec![
                    name.clone(),
                    word.to_owned(),
                    mode_text(of(name), now),
                    breaker(name).unwrap_or("?").to_owned(),
                    short(&why.unwrap_or_default(), 80),
                ]
            })
            .collect();
        println!("{}", table(&["provider", "state", "mode", "breaker", "note"], &rows));
        println!("queue: {}", mode_text(pauses.get("queue"), now));
        match asked {
            Some(_) => println!(
                "The breakers are those of the one process at {}; every worker has its own, see velro_provider_breaker in \
                 its /metrics.",
                config.local_url()
            ),
            None => println!(
                "The breakers live in the processes, and no server answers at {}: see velro_provider_breaker in /metrics of \
                 your workers.",
                config.local_url()
            ),
        }
        Ok(())
    }
}

fn mode_text(pause: Option<&Pause>, now: crate::clock::Micros) -> String {
    match pause {
        Some(pause) if pause.mode != Mode::Running => format!(
            "{} since {} by {}: {}",
            pause.mode.as_str(),
            ago(pause.created_at, now),
            pause.actor,
            short(&pause.reason, 60)
        ),
        _ => "running".to_owned(),
    }
}
