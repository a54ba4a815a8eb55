//! A worker's answer as it comes: its frames, each bounded, and all of them together.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::connection::Failed;
use super::wire::{self, Malformed};

/// Printed lines of one call; more is a flood.
const LINES_BYTES_MAX: u64 = 256 << 20;

/// Why there is no next frame.
#[derive(Debug)]
pub(super) enum Broken {
    Gone(String),
    Lie(Malformed),
}

pub(super) struct Answer {
    body: Incoming,
    buffer: BytesMut,
    /// Of one frame.
    frame_bytes_max: u64,
    bytes_left: u64,
}

impl Answer {
    pub fn new(body: Incoming, frame_bytes_max: u64) -> Self {
        let bytes_left = LINES_BYTES_MAX + frame_bytes_max;
        Self { body, buffer: BytesMut::new(), frame_bytes_max, bytes_left }
    }

    /// The next frame. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<(u8, Bytes), Broken> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            let more = match self.body.frame().await {
                Some(Ok(more)) => more,
                Some(Err(error)) => return Err(Broken::Gone(error.to_string())),
                None => return Err(Broken::Gone("the answer ended before the call did".to_owned())),
            };
            let Ok(data) = more.into_data() else { continue };
            self.bytes_left = self
                .bytes_left
                .checked_sub(data.len() as u64)
                .ok_or(Broken::Lie(Malformed("its answer has no end")))?;
            if self.buffer.is_empty() {
                // As a rule an answer comes in one piece.
                self.buffer = data.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            } else {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    fn take(&mut self) -> Result<Option<(u8, Bytes)>, Broken> {
        let Some(header) = self.buffer.first_chunk::<5>() else { return Ok(None) };
        let (kind, length) = (header[0], u32::from_le_bytes([header[1], header[2], header[3], header[4]]));
        if !(wire::WAITS..=wire::OVER).contains(&kind) {
            return Err(Broken::Lie(Malformed("its answer has a frame of no known kind")));
        }
        if u64::from(length) > self.frame_bytes_max {
            return Err(Broken::Lie(Malformed("its answer has a frame larger than may be")));
        }
        let length = length as usize;
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some((kind, self.buffer.split_to(length).freeze())))
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone(why) => Failed::Lost(why),
            Broken::Lie(why) => Failed::Refused(why.to_string()),
        }
    }
}
