//! Arguments → configuration → the node → exit code. Decides nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use faasd::cli::{self, Arguments, Environment};
use faasd::config::Config;
use faasd::node::{self, Surroundings};
use faasd::{config, runtime, sandbox, telemetry};

fn main() -> ExitCode {
    // The daemon starts itself under these names. They come before all else: a launcher must stay tiny and single-threaded.
    match std::env::args_os().nth(1).as_deref().and_then(|first| first.to_str()) {
        Some("sandbox-launcher") => return ExitCode::from(sandbox::launcher::main()),
        Some("sandbox-runner") => return sandbox_runner(),
        _ => {}
    }
    let arguments = Arguments::parse();
    let environment = environment();
    if let Some(command) = arguments.command {
        return cli::run(command, environment);
    }
    let flags = arguments.daemon;
    let path = environment
        .iter()
        .find(|(name, _)| name.as_os_str() == "PATH")
        .map(|(_, value)| value.to_string_lossy().into_owned());
    match config::load::load(flags.config.as_deref(), environment, &flags.values()) {
        Ok(config) => daemon(config, path.unwrap_or_default()),
        Err(problems) => cli::Failure::Usage(format!("the configuration is wrong\n{problems}")).report(),
    }
}

/// Runs the node on a runtime of its own.
fn daemon(config: Config, path: String) -> ExitCode {
    telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("faasd").build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::Failure::Platform(format!("the async runtime can't start: {error}")).report(),
    };
    let executable = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    runtime.block_on(node::run(config, Surroundings { executable, path }))
}

/// Inside a sandbox: runs a native program for the daemon at the other end of the inherited socket.
fn sandbox_runner() -> ExitCode {
    match sandbox::inherited(runtime::wire::SOCKET_FD) {
        Ok(socket) => ExitCode::from(runtime::runner::run(socket, sandbox::fork_known)),
        Err(_) => cli::Failure::Usage("sandbox-runner is started by the daemon inside a sandbox".to_owned()).report(),
    }
}

/// The one place that reads the process's environment.
#[allow(clippy::disallowed_methods, reason = "main hands the environment to the configuration")]
fn environment() -> Environment {
    std::env::vars_os().collect()
}
