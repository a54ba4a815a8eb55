//! What a sandbox uses at this moment, for gauges; what a call used is in its report.

/// One look at a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Charged to it, files that it reads and its `/tmp` included.
    pub memory_bytes: u64,
    /// Since its start.
    pub cpu_us: u64,
    /// Processes and threads.
    pub tasks: u64,
}

pub trait UsageReader: Send + Sync + 'static {
    /// A few microseconds, no waiting. What can't be read is 0; `None` once the sandbox has ended.
    fn sample(&self) -> Option<Sample>;
}
