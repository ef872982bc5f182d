//! `velro generations`: list, show, refund, resolve. Looking for problems is in [`super::problems`].

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::table::{ago, short, table};
use super::{Desk, by, cursor, id, print_json, print_more, view};
use crate::catalog::Registry;
use crate::cli::generations::{GenerationsCommand, ResolveOutcome};
use crate::cli::sign::{ListArgs, SignArgs};
use crate::clock;
use crate::desk;
use crate::generation::{AttemptState, Status, StoredOutput};
use crate::id::GenerationId;
use crate::ledger::Credits;
use crate::outputs::Outputs;
use crate::provider::ProviderShelf;
use crate::store::{Case, CaseFile, CaseFilter, Refund, Refunded, Resolution, Resolve, Resolved};
use crate::upstream::Upstream;

impl Desk<'_> {
    pub(super) async fn generations(&self, command: GenerationsCommand) -> Result<bool> {
        match command {
            GenerationsCommand::List {
                user,
                status,
                provider,
                model,
                list,
            } => {
                let user_id = match user {
                    Some(user) => Some(self.find(&user).await?.id),
                    None => None,
                };
                let parse = |text: String| {
                    let all = Status::ALL.map(Status::as_str).join(", ");
                    Status::parse(&text).with_context(|| format!("--status {text}: must be one of {all}"))
                };
                let filter = CaseFilter {
                    user_id,
                    status: status.map(parse).transpose()?,
                    provider,
                    model_id: model,
                    after: cursor(list.cursor.as_ref())?,
                    limit: list.limit,
                };
                self.list_generations(filter, &list).await?;
            }
            GenerationsCommand::Show { generation, json } => {
                self.show_generation(id(&generation, "generation")?, json).await?;
            }
            GenerationsCommand::Problems {
                kind,
                older_than,
                limit,
                cursor: after,
                json,
            } => {
                let after = cursor(after.as_ref())?;
                return self
                    .problems(kind.map(Into::into), older_than, limit as usize, after, json)
                    .await;
            }
            GenerationsCommand::Refund {
                generation,
                amount,
                key,
                reason,
                sign,
            } => {
                let refund = Refund {
                    generation_id: id(&generation, "generation")?,
                    amount: amount.map(Credits),
                    by: by(&sign, &reason),
                    idempotency_key: key,
                };
                self.refund(refund, sign.json).await?;
            }
            GenerationsCommand::Resolve {
                generation: None, sign, ..
            } => self.list_unknown(sign.json).await?,
            GenerationsCommand::Resolve {
                generation: Some(generation),
                outcome,
                force,
                reason,
                sign,
            } => {
                let id = id(&generation, "generation")?;
                self.resolve(id, outcome, force, &reason, &sign).await?;
            }
        }
        Ok(true)
    }

    async fn list_generations(&self, filter: CaseFilter, list: &ListArgs) -> Result<()> {
        let found = self.store.cases(filter).await?;
        let last = found.items.last().filter(|_| found.more);
        let next = last.map(|case| case.generation.id.to_string());
        if list.json {
            return print_json(&view::list(found.items.iter().map(view::case).collect(), next));
        }
        let now = clock::now();
        let row = |case: &Case| {
            let g = &case.generation;
            let attempt = case.attempt.as_ref().filter(|_| g.status == Status::Processing);
            vec![
                g.id.to_string(),
                g.status.as_str().to_owned(),
                attempt.map_or_else(String::new, |a| a.state.as_str().to_owned()),
                g.price.to_string(),
                g.captured.map_or_else(String::new, |c| c.to_string()),
                match g.refunded {
                    Credits::ZERO => String::new(),
                    refunded => refunded.to_string(),
                },
                short(&case.email, 32),
                g.model_id.clone(),
                g.provider.clone(),
                ago(g.created_at, now),
            ]
        };
        let rows: Vec<_> = found.items.iter().map(row).collect();
        let head = [
            "id",
            "status",
            "attempt",
            ">price",
            ">charged",
            ">refunded",
            "user",
            "model",
            "provider",
            "submitted",
        ];
        println!("{}", table(&head, &rows));
        print_more(next.as_ref());
        Ok(())
    }

    async fn show_generation(&self, id: GenerationId, json: bool) -> Result<()> {
        let file = self.store.case(id).await?;
        let file = file.with_context(|| format!("there is no generation {id}"))?;
        if json {
            let mut value = view::case(&file.case);
            let g = &file.case.generation;
            value["prompt"] = json!(g.prompt);
            value["parameters"] = Value::Object(g.parameters.clone());
            value["attempts"] = Value::Array(file.attempts.iter().map(view::note).collect());
            value["audit"] = Value::Array(file.audit.iter().map(view::entry).collect());
            let events = file.events.iter();
            value["events"] = events
                .map(|e| json!({"seq": e.seq, "kind": e.kind.as_str(), "created_at": e.created_at.rfc3339()}))
                .collect();
            return print_json(&value);
        }
        print_file(&file);
        Ok(())
    }

    async fn refund(&self, refund: Refund, json: bool) -> Result<()> {
        let id = refund.generation_id;
        match self.store.refund(refund).await? {
            Refunded::Done {
                generation,
                amount,
                available,
                replayed,
            } => {
                if json {
                    return print_json(&json!({
                        "generation_id": id, "user_id": generation.user_id, "amount": amount,
                        "captured": generation.captured, "refunded": generation.refunded, "available": available,
                        "replayed": replayed,
                    }));
                }
                let charged = generation.captured.unwrap_or_default();
                match replayed {
                    true => println!("this key has been used before; nothing was given back again"),
                    false => println!(
                        "gave {amount} credits back for generation {id}: {} of {charged} charged are refunded now; the user \
                         has {available}",
                        generation.refunded
                    ),
                }
                Ok(())
            }
            Refunded::NothingLeft(generation) => {
                let charged = generation.captured.unwrap_or_default();
                match json {
                    true => print_json(&json!({
                        "generation_id": id, "user_id": generation.user_id, "amount": 0, "captured": charged,
                        "refunded": generation.refunded, "replayed": true,
                    }))?,
                    false => println!(
                        "all {charged} credits that were charged for generation {id} are refunded already; nothing was \
                         changed"
                    ),
                }
                Ok(())
            }
            Refunded::TooMuch { left } => {
                bail!("only {left} of what was charged have not been given back; nothing was changed")
            }
            Refunded::KeyReused => {
                bail!("this key was used for another amount of this generation; nothing was changed")
            }
            Refunded::NotCharged(status) if status.is_terminal() => {
                bail!("generation {id} is {}: nothing was charged for it", status.as_str())
            }
            Refunded::NotCharged(status) => bail!(
                "generation {id} is {}: its credits are held, not charged; `velro generations resolve {id} --refund --force` \
                 ends it and releases them",
                status.as_str()
            ),
            Refunded::Missing => bail!("there is no generation {id}"),
        }
    }

    /// `velro generations resolve` without an id: what waits for an operator.
    async fn list_unknown(&self, json: bool) -> Result<()> {
        let unknown = self.store.attempts_in(AttemptState::Unknown, 1000).await?;
        if json {
            let items = unknown.iter().map(|(attempt, generation)| {
                json!({
                    "id": generation.id, "user_id": generation.user_id, "model_id": generation.model_id,
                    "provider": attempt.provider, "price": generation.price, "attempt_id": attempt.id,
                    "remote_id": attempt.remote_id, "created_at": attempt.created_at.rfc3339(),
                })
            });
            return print_json(&view::list(items.collect(), None));
        }
        if unknown.is_empty() {
            println!("nothing is unknown");
        }
        for (attempt, generation) in unknown {
            println!(
                "{}  {:>6} credits  {}  since {}  provider id {}",
                generation.id,
                generation.price,
                generation.model_id,
                attempt.created_at.rfc3339(),
                attempt.remote_id.as_deref().unwrap_or("not known")
            );
        }
        Ok(())
    }

    /// Carries out the operator's word, once.
    async fn resolve(
        &self,
        id: GenerationId,
        outcome: ResolveOutcome,
        force: bool,
        reason: &str,
        sign: &SignArgs,
    ) -> Result<()> {
        let file = self.store.case(id).await?;
        let file = file.with_context(|| {
            format!("there is no generation {id}; `velro generations resolve` lists what is unknown")
        })?;
        let generation = &file.case.generation;
        let state = file.case.attempt.as_ref().map(|a| a.state);
        let is_unknown = generation.status == Status::Processing && state == Some(AttemptState::Unknown);
        let ends_all = force && !generation.status.is_terminal();
        if !is_unknown && !ends_all {
            let hint = match generation.status.is_terminal() {
                true => "nothing to resolve",
                false => "nothing to resolve; `--refund --force` ends it all the same",
            };
            let attempt = state.map_or_else(String::new, |s| format!(", its attempt {}", s.as_str()));
            bail!("generation {id} is {}{attempt}: {hint}", generation.status.as_str());
        }
        let resolution = match outcome {
            ResolveOutcome { refund: true, .. } => Resolution::Refund,
            ResolveOutcome { retry: true, .. } => Resolution::Retry,
            ResolveOutcome { deliver, .. } if !deliver.is_empty() => {
                Resolution::Deliver(self.fetch(generation, &deliver, sign.json).await?)
            }
            _ => bail!("say what happened: --refund, --retry or --deliver URL"),
        };
        let by = by(sign, reason);
        let resolve = Resolve {
            generation_id: id,
            resolution,
            even_running: force,
            actor: by.actor,
            reason: by.reason,
            now: by.now,
        };
        match self.store.resolve_unknown(resolve).await? {
            Resolved::Done { generation, .. } if sign.json => print_json(&json!({
                "generation_id": id, "status": generation.status.as_str(), "captured": generation.captured,
                "price": generation.price,
            })),
            Resolved::Done { generation, .. } => {
                println!(
                    "generation {id} is {} now, {} of {} credits captured",
                    generation.status.as_str(),
                    generation.captured.unwrap_or_default(),
                    generation.price
                );
                Ok(())
            }
            Resolved::NotUnknown(state) => bail!(
                "somebody was faster: the attempt is {}",
                state.map_or("gone", AttemptState::as_str)
            ),
            Resolved::Missing => bail!("there is no generation {id}"),
        }
    }

    /// Copies what the provider delivered into our storage.
    async fn fetch(
        &self,
        generation: &crate::generation::Generation,
        urls: &[String],
        quiet: bool,
    ) -> Result<Vec<StoredOutput>> {
        let config = self.config;
        let upstream = Upstream::new(config)?;
        let outputs = Outputs::new(config)?;
        let providers = ProviderShelf::load(config, &Registry::from_file(&config.providers_path, clock::now())?)?;
        let told = |url: &str| {
            if !quiet {
                println!("fetching {url}");
            }
        };
        Ok(desk::deliver(&upstream, &outputs, &providers, generation, urls, told).await?)
    }
}

fn print_file(file: &CaseFile) {
    let (g, now) = (&file.case.generation, clock::now());
    let moment = |t: crate::clock::Micros| format!("{} ({})", t.rfc3339(), ago(t, now));
    let mut lines = vec![
        ("id", g.id.to_string()),
        ("user", format!("{} {}", file.case.email, g.user_id)),
        ("model", format!("{} at {}", g.model_id, g.provider)),
        ("prompt", short(&g.prompt, 100)),
        ("status", g.status.as_str().to_owned()),
        ("price", g.price.to_string()),
        ("submitted", moment(g.created_at)),
    ];
    lines.extend(g.completed_at.map(|t| ("ended", moment(t))));
    lines.extend(g.captured.map(|c| ("charged", c.to_string())));
    if g.refunded != Credits::ZERO {
        lines.push(("refunded", g.refunded.to_string()));
    }
    lines.extend(
        g.error
            .as_ref()
            .map(|e| ("error", format!("{}: {}", e.code, e.message))),
    );
    lines.extend(
        g.outputs
            .iter()
            .map(|o| ("file", format!("{} {} bytes", o.key, o.bytes))),
    );
    for (name, value) in lines {
        println!("{name:<9}  {value}");
    }
    if !file.attempts.is_empty() {
        let rows: Vec<_> = file
            .attempts
            .iter()
            .map(|note| {
                let a = &note.attempt;
                vec![
                    a.ordinal.to_string(),
                    a.provider.clone(),
                    a.state.as_str().to_owned(),
                    a.remote_id.clone().unwrap_or_default(),
                    ago(note.updated_at, now),
                    short(note.detail.as_deref().unwrap_or_default(), 80),
                ]
            })
            .collect();
        let head = [">attempt", "provider", "state", "provider's id", "changed", "why"];
        println!("\n{}", table(&head, &rows));
    }
    if !file.audit.is_empty() {
        let rows: Vec<_> = file
            .audit
            .iter()
            .map(|e| {
                vec![
                    ago(e.created_at, now),
                    e.actor.clone(),
                    e.action.clone(),
                    short(&e.reason, 80),
                ]
            })
            .collect();
        println!("\n{}", table(&["when", "operator", "did", "why"], &rows));
    }
}
