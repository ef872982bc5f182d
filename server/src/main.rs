//! The `velro` binary: reads the command line and hands over to [`velro::app`].

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _armed = velro::failpoint::armed();
    let cli = velro::cli::parse();
    velro::app::commands::run(cli).await
}
