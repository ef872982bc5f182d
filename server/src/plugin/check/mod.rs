//! `velro plugin check`: does a library keep the rules? Every case runs in a process of its own, so that one that crashes or
//! hangs is a line of the report like any other.

mod cases;
mod money;
mod questions;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{LoadFault, Note, Verified, read, read_note};

/// How long one case may take before it counts as hanging.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// In front of a child's result, so that what a library prints is not taken for it.
const MARK: &str = "velro-case: ";

/// What to check and with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The library.
    pub file: PathBuf,
    /// The configuration that `create` gets, as JSON text.
    pub config: String,
    /// A folder of recordings, if there is one.
    pub exchanges: Option<PathBuf>,
    /// Where the random questions begin.
    pub seed: u64,
    /// How many random questions are asked.
    pub questions: u32,
}

/// A rule that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// It is loaded, and a second time beside itself.
    Loads,
    /// It takes a configuration or refuses it with a reason.
    Configuration,
    /// It describes itself, always in the same way.
    Manifest,
    /// The same question has the same answer.
    Determinism,
    /// Nothing that an API may answer makes it panic, hang or answer nonsense.
    Hostile,
    /// It may be called from several threads.
    Threads,
    /// It never submits twice.
    Money,
    /// It gives back the memory it takes.
    Memory,
    /// It answers in time.
    Time,
    /// It does what the recordings say.
    Recordings,
}

impl Case {
    /// All, in the order in which they are run.
    pub const ALL: [Case; 10] = [
        Case::Loads,
        Case::Configuration,
        Case::Manifest,
        Case::Determinism,
        Case::Hostile,
        Case::Threads,
        Case::Money,
        Case::Memory,
        Case::Time,
        Case::Recordings,
    ];

    /// What it is called in reports and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Case::Loads => "loads",
            Case::Configuration => "configuration",
            Case::Manifest => "manifest",
            Case::Determinism => "determinism",
            Case::Hostile => "hostile",
            Case::Threads => "threads",
            Case::Money => "money",
            Case::Memory => "memory",
            Case::Time => "time",
            Case::Recordings => "recordings",
        }
    }
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The rule is kept.
    Passed,
    /// It is not.
    Failed,
    /// The process ended: what the library did would have ended the server.
    Crashed,
    /// It did not come to an end.
    Hung,
    /// There was nothing to check it with.
    Skipped,
}

/// The result of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub case: Case,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen; every line stands for itself.
    pub notes: Vec<String>,
    /// What is wrong, with the remedy; empty when nothing is.
    pub problems: Vec<String>,
    /// Milliseconds.
    #[serde(default)]
    pub took_ms: u64,
}

impl Finding {
    fn new(case: Case) -> Self {
        Finding {
            case,
            verdict: Verdict::Passed,
            notes: Vec::new(),
            problems: Vec::new(),
            took_ms: 0,
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.verdict = Verdict::Failed;
        self.problems.push(text.into());
    }

    fn skipped(case: Case, why: &str) -> Self {
        Finding {
            verdict: Verdict::Skipped,
            notes: vec![why.to_owned()],
            ..Finding::new(case)
        }
    }

    /// Nothing is wrong.
    pub fn is_fine(&self) -> bool {
        matches!(self.verdict, Verdict::Passed | Verdict::Skipped)
    }
}

/// Everything that was found out about a library.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// What goes into the registry.
    pub sha256: String,
    /// The boundary it speaks.
    pub abi: Note,
    /// One per case.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The library keeps every rule.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(Finding::is_fine)
    }
}

/// Reads the library without running any of it. The first half of a check, and all of it for a file that is no library.
pub fn examine(file: &Path) -> Result<(Verified, Note), LoadFault> {
    let verified = read(file)?;
    let note = read_note(&verified)?;
    Ok((verified, note))
}

/// Runs one case in this process and prints the result for the parent.
pub fn run_here(case: Case, options: &Options) -> Finding {
    let began = Instant::now();
    let mut finding = cases::run(case, options);
    finding.took_ms = began.elapsed().as_millis() as u64;
    // A finding has nothing that JSON lacks.
    println!("{MARK}{}", serde_json::to_string(&finding).unwrap_or_default());
    finding
}

/// Runs one case in a child process.
pub fn run_apart(case: Case, options: &Options) -> std::io::Result<Finding> {
    let began = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "plugin",
        "check",
        "--case",
        case.as_str(),
        "--config-json",
        &options.config,
    ]);
    command.args([
        "--seed",
        &options.seed.to_string(),
        "--questions",
        &options.questions.to_string(),
    ]);
    if let Some(folder) = &options.exchanges {
        command.arg("--exchanges").arg(folder);
    }
    command.arg("--").arg(&options.file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read_all = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(stream) = stream {
                // What a library prints is bounded; what is cut off was not asked for.
                drop(stream.take(1 << 20).read_to_end(&mut text));
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read_all(stdout.map(|s| Box::new(s) as _));
    let stderr = read_all(stderr.map(|s| Box::new(s) as _));
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if began.elapsed() > CASE_LIMIT => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    let told = stdout.lines().rev().find_map(|line| line.strip_prefix(MARK));
    if let Some(finding) = told.and_then(|json| serde_json::from_str(json).ok()) {
        return Ok(finding);
    }
    let mut finding = Finding::new(case);
    finding.took_ms = began.elapsed().as_millis() as u64;
    match status {
        None => {
            finding.problem(format!(
                "did not end within {} s; its functions must return at once",
                CASE_LIMIT.as_secs()
            ));
            finding.verdict = Verdict::Hung;
        }
        Some(status) => {
            finding.problem(format!(
                "ended the process ({status}); in a server that would have been the end of it"
            ));
            finding.verdict = Verdict::Crashed;
        }
    }
    let last: Vec<&str> = stderr.lines().rev().take(5).collect();
    finding.notes.extend(last.into_iter().rev().map(str::to_owned));
    Ok(finding)
}

/// The configuration as a JSON object.
fn config_of(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(format!("the configuration must be a JSON object, not {other}")),
        Err(error) => Err(format!("the configuration is not JSON: {error}")),
    }
}
