//! The `velro` binary: reads the command line and hands over to [`velro::app`].

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = velro::failpoint::armed();
    end_quietly_when_nobody_reads();
    let cli = velro::cli::parse();
    velro::app::commands::run(cli).await
}

/// `velro users list --json | head`: whoever has read enough closes the pipe, and that is no fault of ours. Other programs are ended
/// by the kernel then (SIGPIPE, 141 for a shell); Rust ignores that signal, and printing panics.
fn end_quietly_when_nobody_reads() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(141);
        }
        others(panic);
    }));
}
