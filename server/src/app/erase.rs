//! Erases what people who have left have left behind: their files, what their generations were about, their projects, and
//! the account at the service that kept it. Every step can be the last one; the next round, here or elsewhere, goes on.

use std::collections::HashSet;
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
/// So long other processes may still take requests of somebody who has left.
const GRACE: Duration = Duration::from_secs(15);

/// Where the last round ended, and whose account elsewhere is gone already.
#[derive(Default)]
struct Progress {
    after: Option<UserId>,
    gone_elsewhere: HashSet<UserId>,
}

/// Until told to stop.
pub(super) async fn keep_erasing(services: Arc<Services>, stop: CancellationToken) {
    let (mut failing, mut progress) = (false, Progress::default());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match round(&services, &mut progress, &stop).await {
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

async fn round(services: &Services, progress: &mut Progress, stop: &CancellationToken) -> anyhow::Result<()> {
    let people = services.store.to_erase(progress.after, PEOPLE).await?;
    // In turns: one who cannot be erased now, for whatever reason, keeps nobody behind.
    progress.after = people.last().copied();
    for user in people {
        if stop.is_cancelled() {
            break;
        }
        if let Err(error) = erase(services, progress, user, stop).await {
            tracing::warn!(user_id = %user, error = %error, "somebody who left is erased later");
        }
    }
    Ok(())
}

async fn erase(
    services: &Services,
    progress: &mut Progress,
    user: UserId,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
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
    if !progress.gone_elsewhere.contains(&user) {
        services.auth.erase_elsewhere(user).await?;
        progress.gone_elsewhere.insert(user);
    }
    let now = clock::now();
    if services.store.finish_erasing(user, now.minus(GRACE), now).await? {
        progress.gone_elsewhere.remove(&user);
        tracing::info!(user_id = %user, "an account that was deleted is erased");
    }
    Ok(())
}
