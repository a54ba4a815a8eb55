//! Arguments → role of the process → run.
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("sandbox-launcher") => ExitCode::from(faasd::sandbox::launcher::main()),
        _ => ExitCode::from(2),
    }
}
