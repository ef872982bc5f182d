//! pgbench over Velro's own tables: what PostgreSQL does for a program that sends a submit as a plain transaction.
//!
//! Two scripts. `three` is a submit as one would sketch it: spend, generation, statement line. `five` writes every row that
//! Velro writes: the hold and the `queued` event too. Ids and times come from the server, people are picked at random.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::services::program;
use tokio::process::Command;

use crate::cpu::{self, Whose};
use crate::ground::Database;
use crate::people::{FIRST, ID_PREFIX, PEOPLE};

/// Client counts that are tried; the best one counts.
pub const CLIENTS: [usize; 4] = [1, 8, 32, 64];

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Three statements, plain text each time: pgbench's default.
    Three,
    /// Three statements, prepared once.
    ThreePrepared,
    /// All the rows Velro writes, prepared once.
    FivePrepared,
}

impl Script {
    /// All of them.
    pub const ALL: [Script; 3] = [Script::Three, Script::ThreePrepared, Script::FivePrepared];

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Script::Three => "pgbench, three statements",
            Script::ThreePrepared => "pgbench, three statements, prepared",
            Script::FivePrepared => "pgbench, all five statements, prepared",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Script::Three => "simple",
            Script::ThreePrepared | Script::FivePrepared => "prepared",
        }
    }

    /// A colon and a word are a variable to pgbench, in quotes too: in the JSON there is a space between them.
    fn text(self) -> String {
        let user = format!("('{ID_PREFIX}' || :person)");
        // The rows refer to each other, so the client makes the id, as Velro does; one random number would meet itself again.
        let generation = "(:h || '-0000-4000-8000-' || :g)";
        let spend = format!("UPDATE accounts SET held = held + 50 WHERE id = {user} AND balance - held >= 50;");
        let insert_generation = |id: &str| {
            format!(
                "INSERT INTO generations (id, user_id, model_id, provider, media_type, prompt, parameters, \
                 dropped_parameters, provider_model, provider_input, price, price_basis, status, created_at, updated_at) \
                 VALUES ({id}, {user}::uuid, 'fal-ai/flux-pro/v1.1-ultra', 'fal', 'image', \
                 'a lighthouse in the fog at dawn, seen from a small boat', \
                 '{{\"image_size\": \"landscape_4_3\",\"num_images\": 1,\"output_format\": \"jpeg\",\"guidance_scale\": 3.5,\
                 \"num_inference_steps\": 28,\"safety_tolerance\": 2}}', '[]', 'fal-ai/flux-pro/v1.1-ultra', \
                 '{{\"aspect_ratio\": \"4-3\",\"num_images\": 1,\"output_format\": \"jpeg\",\"prompt\": \"a lighthouse in the fog \
                 at dawn, seen from a small boat\",\"safety_tolerance\": \"2\",\"sync_mode\": false}}', 50, \
                 '{{\"base\": 50,\"factors\": [[\"num_images\",1]],\"count\": 1}}', 'queued', now(), now());"
            )
        };
        let insert_line = |id: &str| {
            format!(
                "INSERT INTO statement_lines (id, user_id, line_type, amount, balance_after, description, generation_id, \
                 metadata, created_at) VALUES (gen_random_uuid(), {user}::uuid, 'usage', -50, 1000, \
                 'Generation with fal-ai/flux-pro/v1.1-ultra', {id}, \
                 '{{\"generation_id\": \"00000000-0000-0000-0000-000000000000\",\
                 \"model_id\": \"fal-ai/flux-pro/v1.1-ultra\"}}', now());"
            )
        };
        let person = format!("\\set person random({FIRST}, {})\n", FIRST + PEOPLE - 1);
        match self {
            Script::Three | Script::ThreePrepared => format!(
                "{person}BEGIN;\n{spend}\n{}\n{}\nCOMMIT;\n",
                insert_generation("gen_random_uuid()"),
                insert_line("NULL")
            ),
            Script::FivePrepared => {
                let id = format!("{generation}::uuid");
                format!(
                    "{person}\\set h random(10000000, 99999999)\n\\set g random(100000000000, 999999999999)\nBEGIN;\n{spend}\n{}\n\
                     INSERT INTO holds (generation_id, account_id, amount, created_at) VALUES ({id}, {user}, 50, now());\n\
                     {}\nINSERT INTO events (generation_id, kind, data, created_at) \
                     VALUES ({id}, 'queued', '{{\"status\": \"queued\"}}', now());\nCOMMIT;\n",
                    insert_generation(&id),
                    insert_line(&id)
                )
            }
        }
    }
}

/// What one run of pgbench says.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Transactions per second.
    pub rate: f64,
    /// Average time of a transaction, in milliseconds.
    pub average_ms: f64,
    /// PostgreSQL's CPU time per transaction, in microseconds.
    pub postgres_us: f64,
    /// pgbench's own.
    pub pgbench_us: f64,
}

/// Runs a script with so many clients.
///
/// # Errors
/// If pgbench is not installed or a transaction fails.
pub async fn run(
    database: &Database,
    postgres: Whose,
    script: Script,
    clients: usize,
    counted: Duration,
) -> Result<Outcome> {
    let file = database.folder().join("script.sql");
    std::fs::write(&file, script.text())?;
    let before = (cpu::time(postgres)?, cpu::time(Whose::Ended)?);
    let output = Command::new(program("pgbench")?)
        .args(["-n", "-j", "2", "-M", script.protocol(), "-c", &clients.to_string()])
        .args(["-T", &counted.as_secs().max(1).to_string(), "-f"])
        .arg(&file)
        .arg(&database.url)
        .stdin(Stdio::null())
        .output()
        .await
        .context("run pgbench")?;
    let used = (
        cpu::time(postgres)?.saturating_sub(before.0),
        cpu::time(Whose::Ended)?.saturating_sub(before.1),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let says = |before: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(before));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        number.with_context(|| format!("pgbench does not say `{before}`:\n{text}"))
    };
    ensure!(
        output.status.success(),
        "pgbench: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let transactions = says("number of transactions actually processed:")?;
    let per = |used: Duration| used.as_secs_f64() * 1e6 / transactions;
    Ok(Outcome {
        rate: says("tps =")?,
        average_ms: says("latency average =")?,
        postgres_us: per(used.0),
        pgbench_us: per(used.1),
    })
}
