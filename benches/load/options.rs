//! What the person who starts the bench may choose.

use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Parser, Debug)]
#[command(about = "Drives a real faasd, and references beside it, for one round")]
pub struct Options {
    /// Seconds measured per load case, after one and a half to warm up.
    #[arg(long, env = "FAASD_BENCH_SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// Functions started cold, per kind of start.
    #[arg(long, default_value_t = 40)]
    pub cold_starts: usize,
    /// Calls per second offered to the mixed open loop.
    #[arg(long, default_value_t = 10_000)]
    pub rate: u64,
    /// Milliseconds that an accepted call may wait in line over capacity; without it, what the case's daemon is configured with.
    #[arg(long)]
    pub queue_bound_ms: Option<f64>,
    /// Only cases whose name contains one of these, with | between them.
    #[arg(long, value_delimiter = '|')]
    pub only: Vec<String>,
    /// The executable; by default the one that cargo built for this bench.
    #[arg(long, env = "FAASD_BIN", default_value = env!("CARGO_BIN_EXE_faasd"))]
    pub executable: PathBuf,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
