//! A trace: functions and the calls to them, in order, however they were come by.

use std::time::Duration;

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub memory_mb: u32,
    /// How long its code takes to load.
    pub init: Duration,
    /// Calls left out of the trace because they follow each other so closely that they are warm whatever the policy: they
    /// count in shares.
    pub left_out: u64,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Milliseconds since the trace began.
    pub at_ms: u64,
    pub function: u32,
    pub hold_ms: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub functions: Vec<Function>,
    /// By time.
    pub calls: Vec<Call>,
}

impl Trace {
    pub fn sorted(functions: Vec<Function>, mut calls: Vec<Call>) -> Self {
        calls.sort_unstable();
        Self { functions, calls }
    }

    /// With those that were left out.
    pub fn all_calls(&self) -> u64 {
        self.calls.len() as u64 + self.functions.iter().map(|function| function.left_out).sum::<u64>()
    }
}
