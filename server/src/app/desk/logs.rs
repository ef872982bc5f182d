//! `velro log`: how much every process writes into its log.

use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

use super::{Desk, by, print_json};
use crate::cli::log::LogCommand;
use crate::cli::sign::SignArgs;
use crate::clock;
use crate::desk::holding;
use crate::store::SetLogLevel;
use crate::telemetry::run_time_filter;

impl Desk<'_> {
    pub(super) async fn log(&self, command: LogCommand) -> Result<()> {
        match command {
            LogCommand::Show { json } => self.show_log_level(json).await,
            LogCommand::Level {
                filter,
                minutes,
                reason,
                sign,
            } => {
                let filter = run_time_filter(&filter).context(
                    "the filter must be off, error, warn, info, debug or trace, or name velro's own modules, for example \
                     info,velro::worker=debug",
                )?;
                self.set_log_level(filter, minutes, &reason, &sign).await
            }
            LogCommand::Reset { reason, sign } => self.set_log_level("info".into(), 0, &reason, &sign).await,
        }
    }

    async fn set_log_level(&self, filter: String, minutes: u64, reason: &str, sign: &SignArgs) -> Result<()> {
        let by = by(sign, reason);
        let until = by.now.plus(Duration::from_secs(minutes * 60));
        self.store.set_log_level(SetLogLevel { filter, until, by }).await?;
        self.show_log_level(sign.json).await
    }

    async fn show_log_level(&self, json: bool) -> Result<()> {
        let level = holding(self.store.log_level().await?, clock::now());
        let configured = &self.config.log_level;
        if json {
            return print_json(&json!({
                "configured": configured, "filter": level.as_ref().map(|l| &l.filter),
                "until": level.as_ref().map(|l| l.until.rfc3339()), "actor": level.as_ref().map(|l| &l.actor),
            }));
        }
        match level {
            Some(level) => println!(
                "{} until {}, set by {}; every process follows within seconds. Then LOG_LEVEL is back, {configured} here",
                level.filter,
                level.until.rfc3339(),
                level.actor
            ),
            None => println!("{configured}, as configured here; nothing else is set"),
        }
        Ok(())
    }
}
