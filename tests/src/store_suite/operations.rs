//! What a store says of itself.

use std::time::Duration;

use super::Stage;
use velro::clock;

/// The database of a test is on this machine, and so is its clock.
const CLOSE: Duration = Duration::from_secs(1);

/// The clock that all processes follow goes, and tells the time.
pub async fn it_has_a_clock(stage: &dyn Stage) {
    let store = stage.open().await;
    let before = clock::system();
    let first = store.now().await.unwrap();
    let second = store.now().await.unwrap();
    let after = clock::system();
    assert!(
        first >= before.minus(CLOSE) && second <= after.plus(CLOSE),
        "{before:?} {first:?} {after:?}"
    );
    assert!(second >= first);
    store.close().await;
}
