//! Named places where the fault tests stop the process to kill it.
//!
//! With the feature `failpoints` and `FAILPOINTS="worker::sending=return"` in the environment, the thread that comes by
//! says so on standard error and stops for good; the test then sends SIGKILL. Without the feature this is nothing.

/// Reads `FAILPOINTS`; call once at start and keep the result.
#[cfg(feature = "failpoints")]
pub fn armed() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
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
