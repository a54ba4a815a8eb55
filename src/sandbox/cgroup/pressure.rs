//! Pressure stall information (the kernel's `Documentation/accounting/psi.rst`): how long some process waited for a processor, for
//! memory or for a disk. The node's own is in `/proc/pressure`; v2 groups have it each, also where v1 has the controllers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::meter::text;

/// Two lines of averages and totals.
const TEXT_BYTES: usize = 256;

/// Microseconds during which at least one process of the group waited, since the group was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    pub cpu_us: u64,
    pub memory_us: u64,
    pub io_us: u64,
}

/// Kept descriptors, in the order of [`Stalls`].
#[derive(Debug)]
pub(super) struct Files([File; 3]);

impl Files {
    /// `None` where the kernel keeps no such account, or was told not to.
    pub fn open(group: &Path) -> Option<Self> {
        let open = |name: &str| {
            let file = File::open(group.join(name)).ok()?;
            // With `psi=0` the files are there and can't be read.
            file.read_at(&mut [0; TEXT_BYTES], 0).is_ok_and(|length| length > 0).then_some(file)
        };
        Some(Self([open("cpu.pressure")?, open("memory.pressure")?, open("io.pressure")?]))
    }

    pub fn read(&self) -> Stalls {
        let mut buffer = [0; TEXT_BYTES];
        let mut some = |file: &File| total_us(text(file, &mut buffer), "some").unwrap_or(0);
        Stalls { cpu_us: some(&self.0[0]), memory_us: some(&self.0[1]), io_us: some(&self.0[2]) }
    }
}

/// The total of a line that begins with `kind` (`some` or `full`), in microseconds.
pub fn total_us(text: &str, kind: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
    line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "some avg10=0.12 avg60=0.00 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=42\n";

    #[test]
    fn totals_are_read() {
        assert_eq!((total_us(TEXT, "some"), total_us(TEXT, "full")), (Some(4711), Some(42)));
        assert_eq!((total_us("", "some"), total_us("some\n", "some")), (None, None));
    }

    #[test]
    fn files_that_say_nothing_are_no_account() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Files::open(dir.path()).is_none());
        for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
            std::fs::write(dir.path().join(name), TEXT).unwrap();
        }
        let stalls = Files::open(dir.path()).map(|files| files.read());
        assert_eq!(stalls, Some(Stalls { cpu_us: 4711, memory_us: 4711, io_us: 4711 }));
        std::fs::write(dir.path().join("io.pressure"), "").unwrap();
        assert!(Files::open(dir.path()).is_none());
    }
}
