//! Brings the logs of this process to what an operator asked for.

use super::LanesError;
use crate::clock::Micros;
use crate::store::{LogLevel, Store};
use crate::telemetry::LogLevels;

/// What an operator asked for and that still holds; `None`: what is configured.
pub fn holding(level: Option<LogLevel>, now: Micros) -> Option<LogLevel> {
    level.filter(|level| level.until > now)
}

/// Reads what an operator asked for and does it, or goes back to what is configured when its time is over.
///
/// # Errors
/// When the store does not answer; then nothing changes, but what is over ends all the same with the next answer.
pub async fn load_log_level(store: &dyn Store, levels: &LogLevels, now: Micros) -> Result<(), LanesError> {
    let level = holding(store.log_level().await?, now);
    let wanted = level.as_ref().map(|level| level.filter.as_str());
    match (levels.set(wanted), level) {
        (Ok(false), _) => {}
        (Ok(true), Some(level)) => {
            // Whatever the filter lets pass, this is seen: an operator reads why the logs look different.
            tracing::error!(
                filter = level.filter,
                until = level.until.rfc3339(),
                by = level.actor,
                "log level changed"
            );
        }
        (Ok(true), None) => tracing::info!(filter = levels.configured(), "the configured log level is back"),
        (Err(error), _) => tracing::warn!(
            error = format!("{error:#}"),
            "a log level that this version cannot read"
        ),
    }
    Ok(())
}
