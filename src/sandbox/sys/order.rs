//! What a launcher tells a zygote: once the terms, then an order for each sandbox. As bytes of fixed length, little-endian.
//!
//! Compiled twice, as [`super::raw`] is.
#![allow(dead_code, reason = "one side writes, the other reads")]

/// Where a zygote finds its socket, until a sandbox's own takes the place.
pub const SOCKET_FD: i32 = 3;
/// The zygote's word that it takes orders.
pub const READY: &[u8] = b"ready";
/// What a packet says that tells a launcher of a runtime behind its walls; with the filter's listener where there is one.
pub const BEGUN: &[u8] = b"listener";
/// What a packet begins with that tells which step of a zygote's failed: then errno, four bytes, and the step's name.
pub const FAILED: u8 = 0;

/// Longest programs, in bytes, that terms may come with.
pub const PROGRAMS_BYTES_MAX: usize = 32 * 1024;
pub const TERMS_BYTES: usize = 4 * 8;
pub const ORDER_BYTES: usize = 6 * 8;

/// The descriptors of an order, in this order, before the v2 group if there is one, and the v1 `tasks` files.
pub const DESCRIPTORS: usize = 6;

/// What is the same for all sandboxes, followed by the two programs of the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Rights to files that Landlock takes away, and its scopes; no rights: no Landlock.
    pub files: u64,
    pub scopes: u64,
    /// Length in bytes of the program that tells of refused calls, and of the one that does not.
    pub told_bytes: u64,
    pub untold_bytes: u64,
}

/// One sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    pub open_files_max: u64,
    pub tasks_max: u64,
    /// Ids inside.
    pub root: u64,
    pub user: u64,
    pub time_namespace: u64,
    pub into_v2: u64,
}

fn words<const WORDS: usize>(bytes: &[u8]) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    (bytes.len() == WORDS * 8).then_some(words)
}

fn bytes<const BYTES: usize>(words: &[u64]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (bytes, word) in bytes.chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

impl Terms {
    pub fn to_bytes(self) -> [u8; TERMS_BYTES] {
        bytes(&[self.files, self.scopes, self.told_bytes, self.untold_bytes])
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        words(bytes).map(|[files, scopes, told_bytes, untold_bytes]| Self { files, scopes, told_bytes, untold_bytes })
    }
}

impl Order {
    pub fn to_bytes(self) -> [u8; ORDER_BYTES] {
        bytes(&[self.open_files_max, self.tasks_max, self.root, self.user, self.time_namespace, self.into_v2])
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [open_files_max, tasks_max, root, user, time_namespace, into_v2] = words(bytes)?;
        Some(Self { open_files_max, tasks_max, root, user, time_namespace, into_v2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let terms = Terms { files: 1, scopes: u64::MAX, told_bytes: 3, untold_bytes: 1 << 40 };
        assert_eq!(Terms::from_bytes(&terms.to_bytes()), Some(terms));
        let order = Order { open_files_max: 9, tasks_max: 8, root: 7, user: 1000, time_namespace: 1, into_v2: 0 };
        assert_eq!(Order::from_bytes(&order.to_bytes()), Some(order));
    }

    #[test]
    fn another_length_is_no_order() {
        let bytes = Order::default().to_bytes();
        assert_eq!(Order::from_bytes(&bytes[..ORDER_BYTES - 1]), None);
        assert_eq!(Order::from_bytes(&bytes[..ORDER_BYTES - 8]), None);
        assert_eq!(Terms::from_bytes(&[0; TERMS_BYTES + 8]), None);
    }
}
