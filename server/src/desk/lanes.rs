//! Brings what this process knows of stopped lanes up to date.

use crate::pause::Pauses;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Why it could not be read; what was known stays.
pub type LanesError = StoreError;

/// Reads what operators have stopped. True when that is news.
///
/// # Errors
/// When the store does not answer.
pub async fn load_pauses(store: &dyn Store, pauses: &Pauses, metrics: &Metrics) -> Result<bool, LanesError> {
    let changed = pauses.set(store.pauses().await?);
    if changed {
        let known = pauses.all();
        for pause in &known {
            tracing::info!(scope = %pause.scope, mode = pause.mode.as_str(), by = pause.actor, "stopped by an operator");
        }
        if known.is_empty() {
            tracing::info!("nothing is stopped by an operator any more");
        }
        let shown = known.iter().map(|p| (p.scope.to_string(), p.mode.as_str()));
        metrics.paused(shown);
    }
    Ok(changed)
}
