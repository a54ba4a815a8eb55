//! One round of the cases that were chosen: how load is put on, and how what came of it becomes rows.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::harness::chosen;
use super::harness::daemon::{Daemon, Settings};
use super::harness::engine::{Load, Loop, Tally};
use super::harness::rows::Rows;
use super::options::Options;

pub const WARM_UP: Duration = Duration::from_millis(1500);

pub struct Round<'a> {
    pub options: &'a Options,
    pub rows: Rows,
}

impl<'a> Round<'a> {
    pub fn new(options: &'a Options) -> Self {
        Self { options, rows: Rows::of("load") }
    }

    pub fn wants(&self, case: &str) -> bool {
        chosen(&self.options.only, case)
    }

    pub fn daemon(&self, settings: &Settings<'_>) -> io::Result<Daemon> {
        Daemon::start(&self.options.executable, settings)
    }

    /// As many calls as are answered.
    pub fn closed(&self, address: SocketAddr, request: &[u8], connections: usize) -> io::Result<Tally> {
        let requests = &[request.to_vec()];
        let (schedule, duration) = (Loop::Closed, self.options.duration());
        Load { address, requests, connections, schedule, warm_up: WARM_UP, duration, keep_ids: false }.run()
    }

    /// What every load tells.
    pub fn tell(&self, case: &str, tally: &Tally) -> io::Result<()> {
        for (figure, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            if let Some(ms) = tally.ms(quantile) {
                self.rows.add(&format!("{case}: {figure}"), ms, "ms")?;
            }
        }
        self.rows.add(&format!("{case}: failed"), tally.failed as f64, "calls")?;
        if tally.refused > 0 {
            self.rows.add(&format!("{case}: refused"), tally.refused as f64, "calls")?;
        }
        Ok(())
    }

    /// The same, with the rate: for loads that last a while.
    pub fn tell_rate(&self, case: &str, tally: &Tally) -> io::Result<()> {
        self.rows.add(&format!("{case}: completed"), tally.per_second(), "/s")?;
        self.tell(case, tally)
    }
}
