//! The cases themselves; each runs in a process of its own.

use fastrand::Rng;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use velro_plugin::testkit::{Recording, describe, read_folder};
use velro_plugin::{Action, Fault, FaultCode, Manifest, Provider, Step};

use super::questions::{Question, What, random};
use super::{Case, Finding, Options, config_of, examine, money};
use crate::plugin::{Foreign, Library, Plugins};

/// Problems of one kind that are listed; the rest is counted.
const MOST_LISTED: usize = 5;
/// A step that takes longer is named in the report.
const SLOW: Duration = Duration::from_millis(50);
/// Memory that may grow per step before it counts as a leak, in bytes.
const LEAK: f64 = 24.0;

/// What the cases work with.
struct Bench {
    library: Arc<Library>,
    /// Where the private copy is; removed with the process.
    _staging: tempfile::TempDir,
    /// As given on the command line.
    given: Map<String, Value>,
    /// What jobs are asked with: as given, else as in the first recording that has one.
    config: Map<String, Value>,
    /// A model and an input to begin jobs with.
    model: String,
    params: Map<String, Value>,
    recordings: Vec<(String, Recording)>,
}

/// Runs one case. What prevents it is a problem like any other.
pub(super) fn run(case: Case, options: &Options) -> Finding {
    let bench = match Bench::new(options) {
        Ok(bench) => bench,
        Err(what) => {
            let mut finding = Finding::new(case);
            finding.problem(what);
            return finding;
        }
    };
    let done = match case {
        Case::Loads => bench.loads(),
        Case::Configuration => bench.configuration(),
        Case::Manifest => bench.manifest(),
        Case::Determinism => bench.determinism(options),
        Case::Hostile => bench.hostile(options),
        Case::Threads => bench.threads(options),
        Case::Money => bench.money(),
        Case::Memory => bench.memory(options),
        Case::Time => bench.time(options),
        Case::Recordings => bench.recordings(),
    };
    done.unwrap_or_else(|what| {
        let mut finding = Finding::new(case);
        finding.problem(what);
        finding
    })
}

type Done = Result<Finding, String>;

impl Bench {
    fn new(options: &Options) -> Result<Bench, String> {
        let (verified, _) = examine(&options.file).map_err(|fault| fault.to_string())?;
        let staging = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let library = Plugins::new(staging.path())
            .load(&verified)
            .map_err(|fault| fault.to_string())?;
        let given = config_of(&options.config)?;
        let mut config = given.clone();
        let recordings = match &options.exchanges {
            Some(folder) => read_recordings(folder)?,
            None => Vec::new(),
        };
        let (mut model, mut params) = (
            "model".to_owned(),
            Map::from_iter([("prompt".to_owned(), json!("a lighthouse"))]),
        );
        if let Some((_, first)) = recordings.first() {
            (model, params) = (first.model.clone(), first.params.clone());
            if config.is_empty() {
                config.clone_from(&first.config);
            }
        }
        let mut bench = Bench {
            library,
            _staging: staging,
            given,
            config,
            model,
            params,
            recordings,
        };
        if bench.recordings.is_empty()
            && let Some(first) = bench
                .instance()?
                .manifest()
                .ok()
                .and_then(|m| m.models.into_iter().next())
        {
            bench.model = first.id;
        }
        Ok(bench)
    }

    fn instance(&self) -> Result<Foreign, String> {
        self.instance_with(&self.config).map_err(|fault| fault.to_string())
    }

    fn instance_with(&self, config: &Map<String, Value>) -> Result<Foreign, crate::plugin::LoadFault> {
        Foreign::create(Arc::clone(&self.library), "check", config)
    }

    fn start(&self) -> Question {
        Question::start(&self.model, &self.params)
    }

    /// States that the provider itself stores, found by playing the recordings and the first steps of a job.
    fn states(&self, provider: &dyn Provider) -> Vec<Vec<u8>> {
        let mut states: Vec<Vec<u8>> = Vec::new();
        let mut keep = |step: Result<Step, Fault>| {
            let state = step
                .ok()
                .and_then(|step| step.state)
                .filter(|state| !states.contains(state));
            states.extend(state);
        };
        keep(self.start().ask(provider));
        keep(self.start().then(What::Interrupted).ask(provider));
        for (_, recording) in &self.recordings {
            let mut heard = |state: &[u8]| {
                keep(Ok(Step {
                    state: Some(state.to_vec()),
                    ..Step::wait(0)
                }))
            };
            recording.walk(provider, &mut heard);
        }
        states
    }

    fn loads(&self) -> Done {
        let mut finding = Finding::new(Case::Loads);
        let library = &self.library;
        finding.note(format!(
            "{} {}, plugin ABI {}.{}",
            library.name, library.version, library.note.major, library.note.minor
        ));
        if library.name.is_empty() || library.version.is_empty() {
            finding.problem("has no name or no version; both are shown to operators");
        }
        // Two entries of a registry may use one library.
        let (one, two) = (self.instance()?, self.instance()?);
        drop(one);
        two.manifest()
            .map_err(|fault| format!("a second instance does not work once the first is gone: {fault}"))?;
        Ok(finding)
    }

    fn configuration(&self) -> Done {
        let mut finding = Finding::new(Case::Configuration);
        self.instance()?;
        let odd = [
            json!({}),
            json!({"velro_check_unknown": [1, {"a": null}]}),
            json!({"base_url": 7}),
            json!({"base_url": "\u{0}"}),
        ];
        for config in odd {
            let Value::Object(config) = config else { continue };
            match self.instance_with(&config) {
                Ok(_) => finding.note(format!("accepts {}", Value::Object(config))),
                Err(fault) => {
                    finding.note(format!("refuses {}: {}", Value::Object(config), fault.what));
                    if fault.what.contains("Panic:") {
                        finding.problem(format!(
                            "panics over a configuration: {}; answer BadInput and name the field",
                            fault.what
                        ));
                    }
                }
            }
        }
        Ok(finding)
    }

    fn manifest(&self) -> Done {
        let mut finding = Finding::new(Case::Manifest);
        let manifest = self
            .instance()?
            .manifest()
            .map_err(|fault| format!("cannot describe itself: {fault}"))?;
        let again = self
            .instance()?
            .manifest()
            .map_err(|fault| format!("cannot describe itself twice: {fault}"))?;
        if manifest != again {
            finding.problem("describes itself in two ways; a manifest depends on the configuration only");
        }
        finding.note(format!("hosts: {}", manifest.hosts.join(", ")));
        finding.note(format!("secrets: {}", manifest.secrets.join(", ")));
        of_manifest(&manifest, &mut finding);
        Ok(finding)
    }

    fn determinism(&self, options: &Options) -> Done {
        let mut finding = Finding::new(Case::Determinism);
        let (one, two) = (self.instance()?, self.instance()?);
        let states = self.states(&one);
        let mut rng = Rng::with_seed(options.seed);
        let mut questions = vec![self.start(); 2];
        questions
            .extend((0..options.questions.div_ceil(4)).map(|_| random(&mut rng, &self.model, &self.params, &states)));
        let mut differ = 0;
        for question in &questions {
            let (first, second) = (describe(&question.ask(&one)), describe(&question.ask(&two)));
            if first != second {
                differ += 1;
                if differ <= MOST_LISTED {
                    finding.problem(format!(
                        "answers {} in two ways: {first} and {second}; take time and ids from the job, keep nothing between calls",
                        question.describe()
                    ));
                }
            }
        }
        finding.note(format!("{} questions to two instances", questions.len()));
        Ok(finding)
    }

    fn hostile(&self, options: &Options) -> Done {
        let mut finding = Finding::new(Case::Hostile);
        let provider = self.instance()?;
        let manifest = provider.manifest().map_err(|fault| fault.to_string())?;
        let states = self.states(&provider);
        let mut rng = Rng::with_seed(options.seed);
        let (mut wrong, mut faults) = (0usize, 0usize);
        for _ in 0..options.questions {
            let question = random(&mut rng, &self.model, &self.params, &states);
            let problem = match question.ask(&provider) {
                Ok(step) => match &step.action {
                    // A URL that its API answered may lead anywhere; the host refuses it, and that is a rule of the host.
                    Action::Http(request) if matches!(question.what, What::Start) => {
                        money::of_request(request, &manifest.secrets, &manifest.hosts)
                            .into_iter()
                            .next()
                    }
                    _ => money::of_step(&step),
                },
                Err(fault) => {
                    faults += 1;
                    match fault.code {
                        FaultCode::Panic => Some(format!("panics ({})", fault.message)),
                        FaultCode::NoAction => Some("returns without an action".into()),
                        FaultCode::Internal => Some(fault.message),
                        _ => None,
                    }
                }
            };
            let Some(problem) = problem else { continue };
            wrong += 1;
            if wrong <= MOST_LISTED {
                finding.problem(format!("{problem}, when it hears {}", question.describe()));
            }
        }
        finding.note(format!(
            "{} questions, {faults} answered by a fault, seed {}",
            options.questions, options.seed
        ));
        if wrong > MOST_LISTED {
            finding.problem(format!("... and {} more", wrong - MOST_LISTED));
        }
        Ok(finding)
    }

    fn threads(&self, options: &Options) -> Done {
        let mut finding = Finding::new(Case::Threads);
        let provider = self.instance()?;
        let states = self.states(&provider);
        let mut rng = Rng::with_seed(options.seed);
        let questions: Vec<Question> = (0..200)
            .map(|_| random(&mut rng, &self.model, &self.params, &states))
            .collect();
        let alone: Vec<String> = questions
            .iter()
            .map(|question| describe(&question.ask(&provider)))
            .collect();
        let differ = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let told = questions.iter().map(|question| describe(&question.ask(&provider)));
                        told.zip(&alone).filter(|(now, then)| now != *then).count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(1))
                .sum::<usize>()
        });
        if differ > 0 {
            finding.problem(format!(
                "{differ} of 800 answers differ when four threads ask; hold no state, or set VELRO_F_SERIAL"
            ));
        }
        Ok(finding)
    }

    fn money(&self) -> Done {
        let provider = self.instance()?;
        let manifest = provider.manifest().map_err(|fault| fault.to_string())?;
        Ok(money::check(
            &provider,
            &self.start(),
            &manifest.secrets,
            &manifest.hosts,
        ))
    }

    fn memory(&self, options: &Options) -> Done {
        let mut finding = Finding::new(Case::Memory);
        let provider = self.instance()?;
        let states = self.states(&provider);
        let ask = |times: u32| {
            // The same questions in every round, so that a round needs what the one before needed.
            let mut rng = Rng::with_seed(options.seed);
            for _ in 0..times {
                drop(random(&mut rng, &self.model, &self.params, &states).ask(&provider));
            }
        };
        // Enough of them that pages, which are counted whole, do not look like a leak.
        let round = options.questions.max(10_000);
        ask(round);
        ask(round);
        let before = anonymous_bytes();
        ask(round);
        let between = anonymous_bytes();
        ask(round);
        let after = anonymous_bytes();
        let grew = |from: u64, to: u64| to.saturating_sub(from) as f64 / f64::from(round);
        let (first, second) = (grew(before, between), grew(between, after));
        finding.note(format!(
            "{first:.1} and {second:.1} bytes per step over {round} steps each"
        ));
        if first > LEAK && second > LEAK {
            finding.problem(format!(
                "memory grows by {second:.0} bytes with every step; free what a call allocates"
            ));
        }
        Ok(finding)
    }

    fn time(&self, options: &Options) -> Done {
        let mut finding = Finding::new(Case::Time);
        let provider = self.instance()?;
        let states = self.states(&provider);
        let mut rng = Rng::with_seed(options.seed);
        let mut took: Vec<(Duration, Question)> = (0..options.questions.clamp(1, 2_000))
            .map(|_| {
                let question = random(&mut rng, &self.model, &self.params, &states);
                let began = Instant::now();
                drop(question.ask(&provider));
                (began.elapsed(), question)
            })
            .collect();
        took.sort_by_key(|(took, _)| *took);
        if let (Some((middle, _)), Some((worst, question))) = (took.get(took.len() / 2), took.last()) {
            finding.note(format!(
                "median {} us, longest {} us",
                middle.as_micros(),
                worst.as_micros()
            ));
            if *middle > SLOW {
                finding.problem(format!(
                    "a step takes {middle:?}; 50 ms are allowed: a plugin never waits for anything"
                ));
            } else if *worst > SLOW {
                finding.note(format!("the longest was about {}", question.describe()));
            }
        }
        Ok(finding)
    }

    fn recordings(&self) -> Done {
        if self.recordings.is_empty() {
            return Ok(Finding::skipped(
                Case::Recordings,
                "no recordings; name a folder with --exchanges",
            ));
        }
        let mut finding = Finding::new(Case::Recordings);
        for (name, recording) in &self.recordings {
            let mut config = recording.config.clone();
            if config.is_empty() {
                config.clone_from(&self.given);
            }
            let played = match self.instance_with(&config) {
                Ok(provider) => recording.play(&provider).map_err(|mismatch| mismatch.to_string()),
                Err(fault) => Err(fault.to_string()),
            };
            if let Err(what) = played {
                finding.problem(format!("{name} ({}): {what}", recording.about));
            }
        }
        finding.note(format!("{} recordings", self.recordings.len()));
        Ok(finding)
    }
}

fn read_recordings(folder: &Path) -> Result<Vec<(String, Recording)>, String> {
    let files = read_folder(folder)?;
    let parse = |(name, text): (String, String)| match Recording::parse(&text) {
        Ok(recording) => Ok((name, recording)),
        Err(mismatch) => Err(format!("{name}: {mismatch}")),
    };
    files.into_iter().map(parse).collect()
}

fn of_manifest(manifest: &Manifest, finding: &mut Finding) {
    let name = &manifest.provider;
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    {
        finding.problem(format!("`provider` is {name:?}; use a-z, 0-9, `-` and `_`"));
    }
    if manifest.version.is_empty() {
        finding.problem("`version` is empty");
    }
    if manifest.hosts.is_empty() {
        finding.problem("`hosts` is empty: no request would leave; name the hosts of its API");
    }
    for host in &manifest.hosts {
        let whole = url::Url::parse(&format!("https://{host}/"));
        let plain = whole
            .is_ok_and(|url| url.path() == "/" && url.username().is_empty() && !host.contains(['/', '@', '?', '*']));
        if !plain {
            finding.problem(format!(
                "`hosts` names {host:?}; write `host` or `host:port`, without scheme, path or wildcard"
            ));
        }
    }
    for secret in &manifest.secrets {
        let plain = secret
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if secret.is_empty() || !plain {
            finding.problem(format!(
                "`secrets` names {secret:?}; it becomes an environment variable: use A-Z, 0-9 and `_`"
            ));
        }
        if crate::config::ProviderSecrets::is_ours(secret) {
            finding.problem(format!(
                "`secrets` names {secret:?}, which is a setting of Velro; choose another name"
            ));
        }
    }
    for model in &manifest.models {
        if !model.params.is_object() {
            finding.problem(format!("the parameters of model {:?} are not a JSON Schema", model.id));
        }
    }
}

/// Memory of this process that no file stands behind.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
