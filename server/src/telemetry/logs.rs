//! The logs of this process: where they go, and how much of them, which can be changed while it runs.

use anyhow::Context as _;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::trace::Traces;
use crate::clock::Micros;
use crate::config::Config;

/// Levels for the dependencies when `LOG_LEVEL` is one word: their details help nobody but their authors.
const QUIET: &str = "hyper=warn,h2=warn,rustls=warn,reqwest=warn,sqlx=warn,salvo=warn,salvo_core=warn,salvo_extra=error,opentelemetry=warn";

/// Requests for probes and metrics have spans with this target: they are logged as all others, and are no traces.
pub const UNTRACED: &str = "velro::probe";

/// Starts logging to standard error, as text or one JSON object a line, and tracing where a collector is configured.
/// `LOG_LEVEL` is a level for Velro or a whole tracing filter. Fails when the filter cannot be read or logging has been
/// started before.
pub fn init(config: &Config) -> anyhow::Result<(LogLevels, Option<Traces>)> {
    let (filter, handle) = reload::Layer::new(filter(&config.log_level)?);
    const FAILED: &str = "logging could not be started";
    let registry = tracing_subscriber::registry();
    let traces = match Traces::open(config)? {
        // One filter for everything: what nobody wants costs nothing.
        None => {
            registry.with(filter).with(lines(config)).try_init().context(FAILED)?;
            None
        }
        Some((traces, tracer)) => {
            let ours = |meta: &Metadata<'_>| meta.target().starts_with("velro") && meta.target() != UNTRACED;
            let wanted = FilterFn::new(move |meta| meta.is_span() && ours(meta)).with_max_level_hint(Level::DEBUG);
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false);
            let lines = lines(config).with_filter(EachTime(filter));
            let both = registry.with(lines).with(spans.with_filter(EachTime(wanted)));
            both.try_init().context(FAILED)?;
            Some(traces)
        }
    };
    let levels = LogLevels {
        handle: Some(handle),
        configured: config.log_level.clone(),
        present: Mutex::new(None),
    };
    Ok((levels, traces))
}

/// What is written for people and collectors of logs.
fn lines<S>(config: &Config) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match config.log_json {
        true => fmt::layer()
            .json()
            .flatten_event(true)
            // All of them: the innermost may be a part of a step, without the ids.
            .with_current_span(false)
            .with_span_list(true)
            .with_writer(std::io::stderr)
            .boxed(),
        false => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    }
}

/// A filter of one of several layers that is asked for every span and event, and not once for each place in the code.
///
/// Such filters note on the thread what they refused. A question without a span or event behind it (`enabled!`, as sqlx asks)
/// leaves the note lying, and whoever comes next without asking would be dropped.
struct EachTime<F>(F);

impl<S, F: Filter<S>> Filter<S> for EachTime<F> {
    fn enabled(&self, meta: &Metadata<'_>, cx: &Context<'_, S>) -> bool {
        self.0.enabled(meta, cx)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        match self.0.callsite_enabled(meta) {
            interest if interest.is_never() => interest,
            _ => Interest::sometimes(),
        }
    }

    fn event_enabled(&self, event: &Event<'_>, cx: &Context<'_, S>) -> bool {
        self.0.event_enabled(event, cx)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        self.0.on_new_span(attributes, id, cx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        self.0.on_record(id, values, cx);
    }

    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        self.0.on_enter(id, cx);
    }

    fn on_exit(&self, id: &Id, cx: Context<'_, S>) {
        self.0.on_exit(id, cx);
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        self.0.on_close(id, cx);
    }
}

/// The filter of the logs, which an operator may change for a while.
pub struct LogLevels {
    /// `None` where nobody logs.
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    configured: String,
    /// What an operator asked for, while that holds.
    present: Mutex<Option<(String, Micros)>>,
}

impl LogLevels {
    /// Of a process that does not log; for tests.
    pub fn silent() -> Self {
        LogLevels {
            handle: None,
            configured: "off".into(),
            present: Mutex::new(None),
        }
    }

    /// What is configured.
    pub fn configured(&self) -> &str {
        &self.configured
    }

    /// What applies instead of it, and until when.
    pub fn present(&self) -> Option<(String, Micros)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(String, Micros)>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an operator asked for, with its end; `None` for what is configured.
    ///
    /// # Errors
    /// When the filter cannot be read: another version may know more. Then nothing changes.
    pub fn set(&self, wanted: Option<(&str, Micros)>) -> anyhow::Result<()> {
        let mut present = self.lock();
        let before = present.as_ref().map(|(filter, _)| filter.as_str());
        let after = wanted.map(|(filter, _)| filter);
        if before != after {
            let new = filter(after.unwrap_or(&self.configured))?;
            if let Some(handle) = &self.handle {
                handle.reload(new)?;
            }
        }
        *present = wanted.map(|(filter, until)| (filter.to_owned(), until));
        Ok(())
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let is_word = level.chars().all(|c| c.is_ascii_alphabetic());
    let directives = match is_word {
        true => format!("{},{QUIET}", level.to_ascii_lowercase()),
        false => level.to_owned(),
    };
    EnvFilter::try_new(&directives)
        .with_context(|| format!("LOG_LEVEL={level}: neither error, warn, info, debug, trace nor a tracing filter"))
}

/// A level or filter that an operator may set at run time, as it is stored; `None` for anything else. Only Velro's own
/// modules may become more talkative: what libraries say at `debug` may hold secrets.
pub fn run_time_filter(text: &str) -> Option<String> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let text = text.trim().to_ascii_lowercase();
    if LEVELS.contains(&text.as_str()) {
        return Some(text);
    }
    let mut has_level = false;
    for directive in text.split(',') {
        match directive.split_once('=') {
            Some((target, level)) => {
                let ours = target == "velro" || target.starts_with("velro::");
                let plain = target.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
                // Errors can be silenced in the configuration only.
                let silent = level == "off" && target != "velro";
                if !ours || !plain || !(silent || LEVELS.contains(&level)) {
                    return None;
                }
            }
            None if LEVELS[..3].contains(&directive) && !has_level => has_level = true,
            None => return None,
        }
    }
    // Without a level for all others they would be silent.
    let all = if has_level { text } else { format!("warn,{text}") };
    (all.len() <= 500).then_some(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn words_and_filters_are_understood() {
        for level in ["info", "DEBUG", "warn,velro::access=off", "velro=trace"] {
            filter(level).unwrap();
        }
        assert!(filter("velro=loud").is_err());
    }

    #[test]
    fn an_operator_makes_our_own_modules_talk_and_no_others() {
        for (given, stored) in [
            ("debug", "debug"),
            (" INFO ", "info"),
            ("info,velro::worker=debug", "info,velro::worker=debug"),
            (
                "velro::worker=trace,velro::http=off",
                "warn,velro::worker=trace,velro::http=off",
            ),
        ] {
            assert_eq!(run_time_filter(given).as_deref(), Some(stored), "{given}");
            filter(stored).unwrap();
        }
        for refused in [
            "",
            "off",
            "velro=off",
            "loud",
            "hyper=trace",
            "info,sqlx=debug",
            "trace,velro=debug",
            "velroo=debug",
            "velro[{user=ann}]=debug",
            "info,warn",
            "velro=loud",
        ] {
            assert_eq!(run_time_filter(refused), None, "{refused}");
        }
    }

    #[test]
    fn what_an_operator_asked_for_holds_until_it_is_taken_back() {
        let (levels, end) = (LogLevels::silent(), Micros(7));
        levels.set(Some(("debug", end))).unwrap();
        assert_eq!(levels.present(), Some(("debug".to_owned(), end)));
        assert!(levels.set(Some(("velro=loud", end))).is_err());
        assert_eq!(
            levels.present(),
            Some(("debug".to_owned(), end)),
            "what cannot be read changes nothing"
        );
        levels.set(None).unwrap();
        assert_eq!(levels.present(), None);
        assert_eq!(levels.configured(), "off");
    }
}
