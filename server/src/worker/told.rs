//! What only this process knows must reach the store.

use std::pin::Pin;
use std::time::Duration;
use tokio::time::sleep;

use super::LATER;
use crate::generation::Pending;
use crate::store::{Result, Work};

/// The first pause before a call is made again; it doubles up to [`LATER`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Makes a call of the store. While the answer to a paid request is in this process's memory and nowhere else, the call is
/// made again until the store answers: given up, a clear acceptance or refusal would become `unknown`, and credits would stay
/// held for nothing. It is safe to repeat, because the store takes it only at the step count and under the lease it names;
/// the end of the process ends it.
pub(super) async fn until_told<'a, T>(
    work: &Work,
    call: impl Fn() -> Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>,
) -> Result<T> {
    let only_here = matches!(work.attempt.pending, Pending::Submit);
    let mut pause = FIRST_PAUSE;
    loop {
        match call().await {
            Err(error) if only_here => {
                tracing::warn!(error = %error, "the answer to a paid request cannot be stored yet; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(LATER);
            }
            told => return told,
        }
    }
}
