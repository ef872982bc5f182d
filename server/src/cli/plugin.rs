//! `velro plugin`: does a library keep the rules, a new crate, and what the registry's libraries are.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use crate::catalog::{ProviderKind, Registry};
use crate::clock;
use crate::config::{Config, Overrides};
use crate::plugin::check::{self, Case, Finding, Options, Report, Verdict};
use crate::plugin::scaffold;
use crate::provider::ProviderShelf;

/// `velro plugin`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum PluginCommand {
    /// Check whether a library keeps the rules of PLUGINS.md.
    ///
    /// Reads the file, loads it in child processes and asks: does it load, does it describe itself, are its answers the same
    /// twice, what does it make of thousands of random answers, of lost answers to a paid request, of four threads; does it
    /// leak, is it slow, does it do what recordings say. What crashes is a line of the report. At the end stands the block
    /// for providers.toml. The library's code runs with your rights: check only what you would run.
    #[command(after_help = "\
Examples:
  velro plugin check target/release/libacme.so
  velro plugin check libacme.so --exchanges fixtures
  velro plugin check libacme.so --config-json '{\"base_url\": \"http://127.0.0.1:9000\"}' --json

Exit codes: 0 when it keeps every rule, 1 when it does not or is no library.")]
    Check {
        /// The library.
        file: PathBuf,
        /// A folder of recorded exchanges (*.json) that it has to keep to.
        #[arg(long, value_name = "FOLDER")]
        exchanges: Option<PathBuf>,
        /// Its configuration, as in the `config` table of its entry [default: that of the first recording, else {}]
        #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
        config_json: String,
        /// Where the random questions begin; the same seed asks the same questions.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many random questions are asked per case.
        #[arg(long, default_value_t = 4_000)]
        questions: u32,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        /// Run this case here; what the child processes are called with.
        #[arg(long, hide = true)]
        case: Option<Case>,
    },

    /// Write a new provider crate that builds and passes the check.
    ///
    /// The SDK comes with it. Everything in it is an example to be changed: an API with a queue that draws pictures.
    #[command(after_help = "\
Example:
  velro plugin new acme
  cd acme && cargo test && cargo build --release
  velro plugin check target/release/libacme.so --exchanges fixtures

Exit codes: 0 when it was written, 1 when it could not be: nothing is ever overwritten.")]
    New {
        /// Name of the crate and of the provider: a-z, 0-9 and `-`.
        name: String,
        /// The folder to write [default: the name, in the working folder]
        #[arg(long, value_name = "FOLDER")]
        path: Option<PathBuf>,
    },

    /// List the libraries of the registry: what is loaded, from where, which content, which version, is it ready.
    ///
    /// Loads them as the server would. How those of a running server are doing is in its /health, for operators, and in
    /// /metrics.
    #[command(after_help = "\
Examples:
  velro plugin list
  velro plugin list --providers new-providers.toml --json

Exit codes: 0 when all of them are ready, 1 when one is not.")]
    List {
        /// Print the list as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Carries out a command; `false` when it found something wrong and has said so.
pub fn run(
    command: &PluginCommand,
    flags: &Overrides,
    env: &BTreeMap<String, String>,
    out: &mut impl Write,
) -> Result<bool> {
    match command {
        PluginCommand::Check {
            file,
            exchanges,
            config_json,
            seed,
            questions,
            json,
            case,
        } => {
            let options = Options {
                file: file.clone(),
                config: config_json.clone(),
                exchanges: exchanges.clone(),
                seed: *seed,
                questions: *questions,
            };
            match case {
                Some(case) => Ok(check::run_here(*case, &options).is_fine()),
                None => check_file(&options, *json, out),
            }
        }
        PluginCommand::New { name, path } => new_crate(name, path.as_deref(), out),
        PluginCommand::List { json } => list(flags, env, *json, out),
    }
}

fn check_file(options: &Options, json: bool, out: &mut impl Write) -> Result<bool> {
    let (verified, note) = match check::examine(&options.file) {
        Ok(examined) => examined,
        Err(fault) if json => {
            let fault = serde_json::json!({ "file": fault.path, "problem": fault.problem, "what": fault.what, "remedy": fault.remedy });
            writeln!(out, "{fault:#}")?;
            return Ok(false);
        }
        Err(fault) => {
            writeln!(out, "{fault}")?;
            return Ok(false);
        }
    };
    if !json {
        writeln!(out, "{}", options.file.display())?;
        writeln!(out, "  sha256 {}", verified.sha256)?;
        writeln!(
            out,
            "  plugin ABI {}.{}, needs a host of {}.{} or later\n",
            note.major, note.minor, note.major, note.min_host_minor
        )?;
    }
    let progress = !json && std::io::stdout().is_terminal();
    let mut findings = Vec::new();
    for case in Case::ALL {
        if progress {
            write!(out, "  ...      {}\r", case.as_str())?;
            out.flush()?;
        }
        let finding = check::run_apart(case, options).context("cannot start a process for a case")?;
        if !json {
            print(&finding, out)?;
        }
        findings.push(finding);
    }
    let report = Report {
        file: options.file.clone(),
        sha256: verified.sha256,
        abi: note,
        findings,
    };
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(report.passed());
    }
    conclude(&report, out)?;
    Ok(report.passed())
}

fn print(finding: &Finding, out: &mut impl Write) -> std::io::Result<()> {
    let word = match finding.verdict {
        Verdict::Passed => "ok",
        Verdict::Failed => "FAILED",
        Verdict::Crashed => "CRASHED",
        Verdict::Hung => "HUNG",
        Verdict::Skipped => "skipped",
    };
    let mut notes = finding.notes.iter();
    let first = notes.next().map_or("", String::as_str);
    writeln!(out, "  {word:<8} {:<14} {first}", finding.case.as_str())?;
    for note in notes {
        writeln!(out, "           {:<14} {note}", "")?;
    }
    for problem in &finding.problems {
        writeln!(out, "         - {problem}")?;
    }
    Ok(())
}

fn conclude(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let wrong = report.findings.iter().filter(|finding| !finding.is_fine()).count();
    let skipped = report
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Skipped)
        .count();
    match (wrong, skipped) {
        (0, 0) => writeln!(out, "\nIt keeps every rule.")?,
        (0, n) => writeln!(out, "\nIt keeps every rule that could be checked; {n} could not.")?,
        (n, _) => {
            writeln!(
                out,
                "\nIt breaks {n} of {} rules; PLUGINS.md says how to keep them.",
                report.findings.len()
            )?;
            return Ok(());
        }
    }
    let file = report.file.file_name().unwrap_or_default().to_string_lossy();
    let name = file
        .trim_start_matches("lib")
        .trim_end_matches(".so")
        .trim_start_matches("velro_")
        .replace('_', "-");
    writeln!(
        out,
        "Copy it into the folder of plugins and write into providers.toml:\n"
    )?;
    writeln!(
        out,
        "[providers.{name}]\nkind = \"plugin\"\npath = \"{file}\"\nsha256 = \"{}\"",
        report.sha256
    )
}

fn new_crate(name: &str, path: Option<&Path>, out: &mut impl Write) -> Result<bool> {
    if !scaffold::is_name(name) {
        bail!(
            "`{name}` cannot be the name of a provider; begin with a letter and use a-z, 0-9 and `-`, at most 40 characters"
        );
    }
    let folder = path.unwrap_or(Path::new(name));
    scaffold::write(folder, name).with_context(|| format!("cannot write {}", folder.display()))?;
    writeln!(
        out,
        "{folder} is a provider. Next:\n\n  cd {folder}\n  cargo test\n  cargo build --release\n  velro plugin check \
         target/release/{library} --exchanges fixtures",
        folder = folder.display(),
        library = scaffold::library_name(name)
    )?;
    Ok(true)
}

fn list(flags: &Overrides, env: &BTreeMap<String, String>, json: bool, out: &mut impl Write) -> Result<bool> {
    let flags = Overrides {
        read_only: true,
        ..flags.clone()
    };
    let (config, _) = Config::load(&flags, env)?;
    let registry = Registry::from_file(&config.providers_path, clock::now())?;
    let staging = tempfile::tempdir().context("no temporary folder")?;
    // A private copy of its own: listing writes nothing into the data folder.
    let shelf = ProviderShelf::load_staged(&config, &registry, staging.path())?;
    let mut rows = Vec::new();
    for entry in registry.providers.values() {
        let ProviderKind::Plugin(source) = &entry.kind else {
            continue;
        };
        let Some(provider) = shelf.get(&entry.name) else {
            continue;
        };
        let library = provider.library.as_ref();
        rows.push(serde_json::json!({
            "provider": entry.name,
            "path": config.plugin_dir.join(&source.path),
            "sha256": source.sha256,
            "library": library.map(|library| &library.name),
            "version": library.map(|library| &library.version),
            "abi": library.map(|library| format!("{}.{}", library.note.major, library.note.minor)),
            "hosts": provider.hosts,
            "enabled": entry.enabled,
            "not_ready": provider.not_ready,
        }));
    }
    let ready = rows.iter().all(|row| row["not_ready"].is_null());
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(ready);
    }
    if rows.is_empty() {
        writeln!(
            out,
            "The registry {} names no libraries (kind = \"plugin\").",
            config.providers_path.display()
        )?;
    }
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let state = row["not_ready"]
            .as_str()
            .map_or("ready".to_owned(), |reason| format!("not ready: {reason}"));
        writeln!(out, "{}: {state}", text("provider"))?;
        writeln!(
            out,
            "  library  {} {}, plugin ABI {}",
            text("library"),
            text("version"),
            text("abi")
        )?;
        writeln!(out, "  file     {}", text("path"))?;
        writeln!(out, "  sha256   {}", text("sha256"))?;
    }
    Ok(ready)
}
