//! What the person who starts the bench may choose.

use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Parser, Debug)]
#[command(about = "Drives a real faasd and prints what it did beside the goals")]
pub struct Options {
    /// Seconds measured per load case, after one second to warm up.
    #[arg(long, env = "FAASD_BENCH_SECONDS", default_value_t = 6)]
    seconds: u64,
    /// Functions started cold, per kind of start.
    #[arg(long, default_value_t = 60)]
    pub cold_starts: usize,
    /// Calls per second offered to the open loop.
    #[arg(long, default_value_t = 10_000)]
    pub rate: u64,
    /// Only cases whose name contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The executable; by default the one that cargo built for this bench.
    #[arg(long, env = "FAASD_BIN", default_value = env!("CARGO_BIN_EXE_faasd"))]
    pub executable: PathBuf,
    /// Where the results go as JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/load.json"))]
    pub json: PathBuf,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| case.contains(part.as_str()))
    }
}
