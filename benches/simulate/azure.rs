//! Reads the two published traces of Azure Functions (github.com/Azure/AzurePublicDataset, CC-BY), one file or many.
//!
//! - 2019: `HashOwner,HashApp,HashFunction,Trigger,1,…,1440`, calls in each minute of a day; one file is one day, in the order given.
//! - 2021: `app,func,end_timestamp,duration`, one call a line, in seconds.
//!
//! Neither tells memory, nor the first how long calls take: both are drawn from the published distributions, the same for the
//! same function.

use std::collections::HashMap;
use std::io::{BufRead, Error, ErrorKind, Result};
use std::time::Duration;

use super::dice::Dice;
use super::trace::{Call, Function, Trace};

const MINUTES: usize = 1440;
const MINUTE_MS: u64 = 60_000;
/// Calls of a function in one minute beyond these find it warm whatever the policy: they are counted, not replayed.
const PER_MINUTE_MAX: u64 = 4;

/// Collects the lines of one or more files.
#[derive(Default)]
pub struct Reader {
    functions: Vec<Function>,
    /// Of each function, for calls whose time is not told.
    holds: Vec<Duration>,
    by_name: HashMap<String, u32>,
    calls: Vec<Call>,
    /// Days read so far, of the first format.
    days: u64,
    functions_max: usize,
}

impl Reader {
    /// Of more functions than that the first are taken.
    pub fn new(functions_max: usize) -> Self {
        Self { functions_max, ..Self::default() }
    }

    pub fn read(&mut self, file: impl BufRead) -> Result<()> {
        let mut lines = file.lines();
        let head = lines.next().ok_or_else(|| bad(1, "the file is empty"))??;
        let is_2019 = match head.trim() {
            head if head.starts_with("HashOwner,HashApp,HashFunction,Trigger,1,") => true,
            "app,func,end_timestamp,duration" => false,
            _ => return Err(bad(1, "this is the header of neither the 2019 nor the 2021 trace")),
        };
        for (n, line) in lines.enumerate() {
            let line = line?;
            let read = if is_2019 { self.day_of_2019(&line) } else { self.call_of_2021(&line) };
            read.ok_or_else(|| bad(n + 2, "a field is missing or no number"))?;
        }
        self.days += u64::from(is_2019);
        Ok(())
    }

    /// Begins at the first call.
    pub fn trace(mut self) -> Trace {
        let begin = self.calls.iter().map(|call| call.at_ms).min().unwrap_or(0);
        self.calls.iter_mut().for_each(|call| call.at_ms -= begin);
        Trace::sorted(self.functions, self.calls)
    }

    fn day_of_2019(&mut self, line: &str) -> Option<()> {
        let mut fields = line.trim().split(',');
        let name = [fields.next()?, fields.next()?, fields.next()?].join(",");
        fields.next()?;
        let Some(function) = self.function(&name) else { return Some(()) };
        let mut minutes = 0;
        for (minute, count) in fields.enumerate() {
            self.minute(function, self.days * MINUTES as u64 + minute as u64, count.parse().ok()?);
            minutes += 1;
        }
        (minutes == MINUTES).then_some(())
    }

    /// Spread evenly over their minute.
    fn minute(&mut self, function: u32, minute: u64, count: u64) {
        let replayed = count.min(PER_MINUTE_MAX);
        self.functions[function as usize].left_out += count - replayed;
        let hold_ms = self.holds[function as usize].as_millis() as u32;
        for n in 0..replayed {
            let at_ms = minute * MINUTE_MS + (2 * n + 1) * MINUTE_MS / (2 * replayed);
            self.calls.push(Call { at_ms, function, hold_ms });
        }
    }

    fn call_of_2021(&mut self, line: &str) -> Option<()> {
        let mut fields = line.trim().split(',');
        let name = [fields.next()?, fields.next()?].join(",");
        let (end, duration): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let Some(function) = self.function(&name) else { return Some(()) };
        let at_ms = ((end - duration).max(0.0) * 1000.0) as u64;
        self.calls.push(Call { at_ms, function, hold_ms: (duration * 1000.0) as u32 });
        Some(())
    }

    fn function(&mut self, name: &str) -> Option<u32> {
        if let Some(known) = self.by_name.get(name) {
            return Some(*known);
        }
        if self.functions.len() >= self.functions_max {
            return None;
        }
        let mut dice = Dice::new(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            // FNV-1a
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }));
        let function = self.functions.len() as u32;
        self.functions.push(Function { memory_mb: dice.memory_mb(), init: dice.init(), left_out: 0 });
        self.holds.push(dice.hold());
        self.by_name.insert(name.to_owned(), function);
        Some(function)
    }
}

fn bad(line: usize, what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("line {line}: {what}"))
}
