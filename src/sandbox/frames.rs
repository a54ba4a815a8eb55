//! Frames out of what a sandbox has sent so far. Pure: bytes in, and a frame or what is wrong with it out.
//!
//! Whatever the sandbox announces, no more is kept than one frame of the kind that is due may have, and nothing is allocated for a
//! length that was not checked.

use bytes::{Bytes, BytesMut};

use crate::runtime::wire::{HEADER_BYTES, Header, Kind, WireError};

/// An answer up to this is read with one system call, and copied out rather than given its buffer.
pub const SMALL_BYTES: usize = 4096;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The rest of the frame is still to come.
    Partial,
    Frame {
        meta: Bytes,
        body: Bytes,
    },
    /// A body of this size was announced. It is not waited for.
    TooLarge(u64),
}

/// How the sandbox broke the protocol, as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("sent {0:?} where {1:?} was due")]
    OutOfOrder(Kind, Kind),
    #[error("sent more than one answer")]
    Surplus,
}

/// What was received and not yet taken.
#[derive(Debug, Default)]
pub struct Frames {
    received: BytesMut,
}

impl Frames {
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Where the next bytes are read to, with room for a small answer and for one byte that would be too many.
    pub fn space(&mut self) -> &mut BytesMut {
        self.received.reserve(SMALL_BYTES + 1);
        &mut self.received
    }

    /// Takes the frame of kind `due` with a body of at most `body_bytes_max`, once it is there as a whole and alone.
    pub fn take(&mut self, due: Kind, body_bytes_max: u64) -> Result<Taken, Fault> {
        let Some(header) = self.received.first_chunk::<HEADER_BYTES>() else { return Ok(Taken::Partial) };
        let header = Header::decode(header)?;
        if header.kind != due {
            return Err(Fault::OutOfOrder(header.kind, due));
        }
        if u64::from(header.body_bytes) > body_bytes_max {
            return Ok(Taken::TooLarge(header.body_bytes.into()));
        }
        let meta_end = HEADER_BYTES + usize::from(header.meta_bytes);
        let whole = meta_end + header.body_bytes as usize;
        if self.received.len() < whole {
            self.received.reserve(whole - self.received.len());
            return Ok(Taken::Partial);
        }
        if self.received.len() > whole {
            return Err(Fault::Surplus);
        }
        let frame = if whole <= SMALL_BYTES {
            // A copy costs less than a new buffer for the next answer.
            let frame = Bytes::copy_from_slice(&self.received);
            self.received.clear();
            frame
        } else {
            // The memory of a large answer goes with it.
            std::mem::take(&mut self.received).freeze()
        };
        Ok(Taken::Frame { meta: frame.slice(HEADER_BYTES..meta_end), body: frame.slice(meta_end..) })
    }

    /// Bytes kept now.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn kept_bytes(&self) -> usize {
        self.received.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::wire::{self, VERSION};

    fn with(bytes: &[u8]) -> Frames {
        let mut frames = Frames::default();
        frames.space().extend_from_slice(bytes);
        frames
    }

    fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
        [wire::head(kind, &serde_json::json!({}), body.len()).unwrap(), body.to_vec()].concat()
    }

    #[test]
    fn half_a_frame_is_waited_for_and_a_whole_one_taken() {
        let bytes = frame(Kind::Result, b"[1]");
        for end in 0..bytes.len() {
            assert_eq!(with(&bytes[..end]).take(Kind::Result, 3), Ok(Taken::Partial), "{end}");
        }
        let taken = Taken::Frame { meta: Bytes::from_static(b"{}"), body: Bytes::from_static(b"[1]") };
        assert_eq!(with(&bytes).take(Kind::Result, 3), Ok(taken));
    }

    #[test]
    fn what_is_not_due_is_a_fault_before_its_body_has_come() {
        let ready = frame(Kind::Ready, &[0; 100]);
        assert_eq!(with(&ready[..8]).take(Kind::Result, 1000), Err(Fault::OutOfOrder(Kind::Ready, Kind::Result)));
        let twice = [frame(Kind::Result, b"1"), frame(Kind::Result, b"1")].concat();
        assert_eq!(with(&twice).take(Kind::Result, 1000), Err(Fault::Surplus));
        assert_eq!(with(&twice[..twice.len() - 1]).take(Kind::Result, 1000), Err(Fault::Surplus));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = frame(Kind::Ready, b"");
        bytes[0] = VERSION + 1;
        let fault = with(&bytes).take(Kind::Ready, 0).unwrap_err();
        assert!(fault.to_string().contains("version 2"), "{fault}");
    }

    #[test]
    fn four_gigabytes_are_not_waited_for() {
        let header = Header { kind: Kind::Result, meta_bytes: u16::MAX, body_bytes: u32::MAX };
        let mut frames = with(&header.encode());
        assert_eq!(frames.take(Kind::Result, 6 << 20), Ok(Taken::TooLarge(u32::MAX.into())));
        assert!(frames.received.capacity() <= 2 * SMALL_BYTES + HEADER_BYTES, "{}", frames.received.capacity());
    }
}
