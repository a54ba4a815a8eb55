//! How much growth, and which.

use std::path::PathBuf;

#[derive(clap::Parser, Debug)]
#[command(about = "What functions, sandboxes, records, connections and payloads cost as they become many")]
pub struct Options {
    /// Functions with a call each, twice.
    #[arg(long, default_value_t = 1000)]
    pub functions: usize,
    /// Idle sandboxes, of a function each.
    #[arg(long, default_value_t = 1000)]
    pub sandboxes: usize,
    /// Registered functions that nobody calls.
    #[arg(long, default_value_t = 10_000)]
    pub registered: usize,
    /// Records in the store.
    #[arg(long, default_value_t = 1_000_000)]
    pub records: usize,
    #[arg(long, default_value_t = 2000)]
    pub connections: usize,
    /// A fifth of the functions and sandboxes, a tenth of the registered ones and of the records: named so in the rows.
    #[arg(long)]
    short: bool,
    /// Only subjects whose name contains one of these: functions called, idle sandboxes, registered, records, connections, payload.
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
    pub fn fitted(self) -> Self {
        if !self.short {
            return self;
        }
        Self {
            functions: self.functions / 5,
            sandboxes: self.sandboxes / 5,
            registered: self.registered / 10,
            records: self.records / 10,
            ..self
        }
    }
}
