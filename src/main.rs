//! Arguments → role of the process → run.
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("sandbox-launcher") => ExitCode::from(faasd::sandbox::launcher::main()),
        Some("sandbox-runner") => match faasd::sandbox::inherited(faasd::runtime::wire::SOCKET_FD) {
            Ok(socket) => faasd::runtime::runner::run(socket),
            Err(_) => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}
