//! Arguments → configuration → the node → exit code. Decides nothing.

use std::process::ExitCode;

use clap::Parser;
use faasd::cli::{self, Arguments, Environment};
use faasd::config::Config;
use faasd::{config, telemetry};

fn main() -> ExitCode {
    // The daemon starts itself under these names. They come before all else: a launcher must stay tiny and single-threaded.
    match std::env::args_os().nth(1).as_deref().and_then(|first| first.to_str()) {
        Some("sandbox-launcher") => return ExitCode::from(faasd::sandbox::launcher::main()),
        Some("sandbox-runner") => return sandbox_runner(),
        _ => {}
    }
    let arguments = Arguments::parse();
    let environment = environment();
    if let Some(command) = arguments.command {
        return cli::run(command, environment);
    }
    let flags = arguments.daemon;
    match config::load::load(flags.config.as_deref(), environment, &flags.values()) {
        Ok(config) => daemon(config),
        Err(problems) => cli::Failure::Usage(format!("the configuration is wrong\n{problems}")).report(),
    }
}

/// Runs the node on a runtime of its own.
fn daemon(config: Config) -> ExitCode {
    telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("faasd").build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::Failure::Platform(format!("the async runtime can't start: {error}")).report(),
    };
    runtime.block_on(node(config))
}

/// PLACEHOLDER, becomes `faasd::node::run(config)`.
async fn node(config: Config) -> ExitCode {
    tracing::error!(role = ?config.role, "the daemon is not linked into this build");
    cli::Failure::Platform("the daemon is not linked into this build yet".to_owned()).report()
}

/// Inside a sandbox of compiled code: stands between the daemon's socket and the program.
fn sandbox_runner() -> ExitCode {
    match faasd::sandbox::inherited(faasd::runtime::wire::SOCKET_FD) {
        Ok(socket) => faasd::runtime::runner::run(socket),
        Err(_) => {
            cli::Failure::Usage("faasd sandbox-runner is started by the daemon, in a sandbox".to_owned()).report()
        }
    }
}

/// The one place that reads the process's environment.
#[allow(clippy::disallowed_methods, reason = "main hands the environment to the configuration")]
fn environment() -> Environment {
    std::env::vars_os().collect()
}
