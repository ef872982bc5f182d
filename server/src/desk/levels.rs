//! Brings the logs of this process to what an operator asked for.

use super::LanesError;
use crate::clock::Micros;
use crate::store::{LogLevel, Store};
use crate::telemetry::LogLevels;

/// What an operator asked for and that still holds; `None`: what is configured.
pub fn holding(level: Option<LogLevel>, now: Micros) -> Option<LogLevel> {
    level.filter(|level| level.until > now)
}

/// Reads what an operator asked for and does it. What is over ends even while the store does not answer.
///
/// # Errors
/// When the store does not answer.
pub async fn load_log_level(store: &dyn Store, levels: &LogLevels, now: Micros) -> Result<(), LanesError> {
    if levels.present().is_some_and(|(_, until)| until <= now) {
        take(levels, None);
    }
    take(levels, holding(store.log_level().await?, now).as_ref());
    Ok(())
}

/// Changes what this process writes, and says so where it is still, or again, seen.
fn take(levels: &LogLevels, level: Option<&LogLevel>) {
    let wanted = level.map(|level| (level.filter.as_str(), level.until));
    let before = levels.present();
    let is_news = before.as_ref().map(|(filter, _)| filter.as_str()) != wanted.map(|(filter, _)| filter);
    if let (Some(level), true) = (level, is_news) {
        let until = level.until.rfc3339();
        tracing::info!(filter = level.filter, until, by = level.actor, "the log level changes");
    }
    match levels.set(wanted) {
        Ok(()) if is_news && wanted.is_none() => {
            tracing::info!(filter = levels.configured(), "the configured log level is back");
        }
        Ok(()) => {}
        Err(error) => tracing::warn!(
            error = format!("{error:#}"),
            "a log level that this version cannot read"
        ),
    }
}
