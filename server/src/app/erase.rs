//! Erases what people who have left have left behind: their files, what their generations were about, their projects, and
//! the account at the service that kept it. Every step can be the last one; the next round, here or elsewhere, goes on.

use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::failpoint;
use crate::http::Services;
use crate::id::UserId;

/// How often somebody is looked for.
const EVERY: Duration = Duration::from_secs(5);
/// People in one round, and generations in one step.
const PEOPLE: u32 = 20;
const STEP: u32 = 100;

/// Until told to stop.
pub(super) async fn keep_erasing(services: Arc<Services>, stop: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match round(&services, &stop).await {
            Ok(()) => failing = false,
            // Whoever watches the database or the disk has said more.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = %error, "what people who left have left behind is erased later");
            }
            Err(_) => {}
        }
    }
}

async fn round(services: &Services, stop: &CancellationToken) -> anyhow::Result<()> {
    for user in services.store.to_erase(PEOPLE).await? {
        if stop.is_cancelled() {
            break;
        }
        // One who cannot be erased now must not keep the others.
        if let Err(error) = erase(services, user, stop).await {
            tracing::warn!(user_id = %user, error = %error, "somebody who left is erased later");
        }
    }
    Ok(())
}

async fn erase(services: &Services, user: UserId, stop: &CancellationToken) -> anyhow::Result<()> {
    loop {
        let left = services.store.leftovers(user, STEP).await?;
        for id in &left.unfinished {
            services.intake.wish_to_cancel(user, *id).await?;
        }
        if left.ended.is_empty() {
            break;
        }
        services.outputs.remove(&left.files).await?;
        failpoint::at("erase::files");
        services.store.erase(user, &left.ended).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
    }
    services.outputs.remove_uploads(user).await?;
    services.auth.erase_elsewhere(user).await?;
    if services.store.finish_erasing(user, clock::now()).await? {
        tracing::info!(user_id = %user, "an account that was deleted is erased");
    }
    Ok(())
}
