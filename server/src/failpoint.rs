//! Named places where the fault tests stop the process to kill it.
//!
//! With the feature `failpoints` and `FAILPOINTS="worker::sending=return"` in the environment, the thread that comes by
//! says so on standard error and stops for good; the test then sends SIGKILL. `VELRO_CLOCK_SKEW_MS` gives the process a
//! machine whose clock is wrong. Without the feature this is nothing.

/// Reads `FAILPOINTS`; call once at start and keep the result.
#[cfg(feature = "failpoints")]
pub fn armed() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// The variable that makes the machine's clock wrong, in milliseconds; see [`clock_skew_us`].
#[cfg(feature = "failpoints")]
pub const CLOCK_SKEW_VAR: &str = "VELRO_CLOCK_SKEW_MS";

/// How far the machine's clock is set wrong for a test, in microseconds.
#[cfg(feature = "failpoints")]
pub fn clock_skew_us() -> i64 {
    static SKEW_US: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let set = std::env::var(CLOCK_SKEW_VAR).ok();
        set.and_then(|text| text.trim().parse::<i64>().ok())
            .map_or(0, |ms| ms.saturating_mul(1000))
    });
    *SKEW_US
}

/// The machine's clock is taken as it is.
#[cfg(not(feature = "failpoints"))]
pub fn clock_skew_us() -> i64 {
    0
}

/// A named place.
#[cfg(feature = "failpoints")]
#[allow(
    clippy::print_stderr,
    reason = "the test waits for this line, and logging may be off"
)]
pub fn at(name: &str) {
    if fail::eval(name, |_| ()).is_some() {
        eprintln!("failpoint {name} reached");
        loop {
            std::thread::park();
        }
    }
}

/// A named place.
#[cfg(not(feature = "failpoints"))]
pub fn at(_name: &str) {}
