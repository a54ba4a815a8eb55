//! How much the machine's processors are idle, for the pool, which gives nobody another sandbox where they are not.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Between two readings: the kernel counts in hundredths of a second for each processor.
const EVERY: Duration = Duration::from_millis(200);
/// The first line of `/proc/stat`, with room to spare.
const LINE_BYTES: usize = 256;

/// `/proc/stat` (proc_stat(5)), kept open, and what it said last.
pub(super) struct Processors {
    file: Option<File>,
    last: Option<(Times, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    idle: u64,
    all: u64,
}

impl Processors {
    /// Without the file nothing is ever said of the processors, and nobody held back for them.
    pub fn open() -> Self {
        let file = File::open("/proc/stat");
        let file = file.inspect_err(
            |error| tracing::warn!(%error, "/proc/stat can't be read: the pool won't know of idle processors"),
        );
        Self { file: file.ok(), last: None }
    }

    /// How much of a thousand they were idle since the reading before; `None`: too early to say.
    pub fn idle(&mut self, now: Duration) -> Option<u16> {
        if self.last.is_some_and(|(_, at)| now < at + EVERY) {
            return None;
        }
        let mut line = [0; LINE_BYTES];
        let read = self.file.as_ref()?.read_at(&mut line, 0).ok()?;
        let times = times(line.get(..read)?)?;
        let (before, _) = self.last.replace((times, now))?;
        idle(before, times)
    }
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, the last two being part of the first.
fn times(stat: &[u8]) -> Option<Times> {
    let line = std::str::from_utf8(stat).ok()?.lines().next()?.strip_prefix("cpu ")?;
    let mut fields = [0; 8];
    for (field, text) in fields.iter_mut().zip(line.split_ascii_whitespace()) {
        *field = text.parse().ok()?;
    }
    Some(Times { idle: fields[3] + fields[4], all: fields.iter().sum() })
}

fn idle(before: Times, after: Times) -> Option<u16> {
    let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
    // The kernel takes some of the idle time back now and then.
    let idle = after.idle.saturating_sub(before.idle).min(all);
    u16::try_from(idle * 1000 / all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_what_neither_ran_nor_was_stolen() {
        let before = times(b"cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Times { idle: 850, all: 1000 });
        let after = times(b"cpu  150 0 70 815 55 0 0 10 0 0\n").unwrap();
        assert_eq!(idle(before, after), Some(200));
        assert_eq!(idle(before, before), None, "no time has gone by");
        assert_eq!(times(b"intr 5\n"), None);
    }

    #[test]
    fn this_machine_says_it() {
        let mut processors = Processors::open();
        assert_eq!(processors.idle(Duration::from_secs(1)), None, "there is no reading before the first");
        std::thread::sleep(EVERY);
        let idle = processors.idle(Duration::from_secs(2)).unwrap();
        assert!(idle <= 1000, "{idle}");
        assert_eq!(processors.idle(Duration::from_secs(2)), None, "too early for another");
    }
}
