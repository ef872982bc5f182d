//! The subscriber of this process.

use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Levels for the dependencies when `LOG_LEVEL` is one word: their details help nobody but their authors.
const QUIET: &str =
    "hyper=warn,h2=warn,rustls=warn,reqwest=warn,sqlx=warn,salvo=warn,salvo_core=warn,salvo_extra=error";

/// Starts logging to standard error, as text or one JSON object a line. `LOG_LEVEL` is a level for Velro or a whole
/// tracing filter. Fails when the filter cannot be read or logging has been started before.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.log_level)?)
        .with_writer(std::io::stderr);
    let started = match config.log_json {
        true => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
        false => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("logging could not be started: {e}"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::filter;

    #[test]
    fn words_and_filters_are_understood() {
        for level in ["info", "DEBUG", "warn,velro::access=off", "velro=trace"] {
            filter(level).unwrap();
        }
        assert!(filter("velro=loud").is_err());
    }
}
