//! The protocol between the daemon and a sandbox, over one stream socket that the sandbox inherits as descriptor 3.
//!
//! ```text
//! frame := version:u8 kind:u8 meta_bytes:u16 body_bytes:u32 meta body      (integers little-endian)
//! ```
//!
//! `meta` is a small JSON object, `body` a payload or a result as it is. One frame is one write. In order:
//!
//! ```text
//! sandbox → READY            the runtime runs and waits for its code
//! daemon  → SPECIALISE       meta = Specialise
//! sandbox → SPECIALISED      meta = Specialised: ok, or why the code can't be loaded
//! daemon  → INVOKE           meta = Invoke, body = payload          ┐ as often as there are
//! sandbox → RESULT           meta = ResultMeta, body = value        ┘ calls
//! ```
//!
//! The daemon believes none of it: lengths are checked before anything is allocated; a frame of another version or kind than is
//! due, for another invocation, or one too many ends the sandbox. What nobody asked for, found before a call was sent, ends it as
//! well, and the call goes to another sandbox.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::domain::function::Runtime;

pub const VERSION: u8 = 1;
/// The type of error by which a runtime says that a value was larger than it would carry; no class of a user's is called so.
pub const OUTPUT_TOO_LARGE: &str = "Runtime.OutputTooLarge";
pub const HEADER_BYTES: usize = 8;
/// The descriptor of the socket inside the sandbox.
pub const SOCKET_FD: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Specialise = 1,
    Invoke = 2,
    Ready = 16,
    Specialised = 17,
    Result = 18,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Specialise,
            2 => Kind::Invoke,
            16 => Kind::Ready,
            17 => Kind::Specialised,
            18 => Kind::Result,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub meta_bytes: u16,
    pub body_bytes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("speaks version {0} of the protocol, not {VERSION}")]
    Version(u8),
    #[error("sent a frame of unknown kind {0}")]
    Kind(u8),
    #[error("announced a meta part of {0} bytes, more than fits a frame")]
    MetaTooLarge(usize),
}

impl Header {
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = VERSION;
        out[1] = self.kind as u8;
        out[2..4].copy_from_slice(&self.meta_bytes.to_le_bytes());
        out[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let [version, kind, m0, m1, b0, b1, b2, b3] = *bytes;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self {
            kind: Kind::from_byte(kind).ok_or(WireError::Kind(kind))?,
            meta_bytes: u16::from_le_bytes([m0, m1]),
            body_bytes: u32::from_le_bytes([b0, b1, b2, b3]),
        })
    }
}

/// A frame's header and meta, ready to be sent together with its body.
pub fn head(kind: Kind, meta: &impl Serialize, body_bytes: usize) -> Result<Vec<u8>, WireError> {
    let mut out = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut out, meta).expect("meta structs have string keys and no failing parts");
    let meta_bytes = out.len() - HEADER_BYTES;
    let header = Header {
        kind,
        meta_bytes: u16::try_from(meta_bytes).map_err(|_| WireError::MetaTooLarge(meta_bytes))?,
        body_bytes: u32::try_from(body_bytes).map_err(|_| WireError::MetaTooLarge(body_bytes))?,
    };
    out[..HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(out)
}

/// Everything a generic runtime needs to become this function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Specialise {
    pub task_root: String,
    /// Decides what the native runner starts; the shims know theirs.
    pub runtime: Runtime,
    /// `file.function`, or absent for the runtime's convention.
    pub handler: Option<String>,
    /// The whole environment of the function: the platform's and the user's.
    pub env: BTreeMap<String, String>,
    pub function_name: String,
    pub function_id: String,
    pub function_version: u32,
    pub memory_mb: u32,
    pub timeout_ms: u64,
    /// Arguments of the compiler, for a build sandbox only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Vec<String>>,
}

/// What a runtime says of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeError {
    /// The exception's class: `ValueError`.
    pub error_type: String,
    pub error_message: String,
    pub stack_trace: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Specialised {
    /// Absent when all is well.
    pub error: Option<RuntimeError>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invoke<'a> {
    pub id: &'a str,
    /// Milliseconds since 1970.
    pub deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<&'a str>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultMeta {
    /// The invocation this answers.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RuntimeError>,
    /// Of a program that ran and exited with a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub handler_us: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub llm_tokens: Option<u64>,
    /// From the native runner: its program asks for calls, and stays between them.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub serving: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_reads_what_it_writes(meta_bytes: u16, body_bytes: u32) {
            let header = Header { kind: Kind::Result, meta_bytes, body_bytes };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_eight_bytes_are_read_or_refused(bytes: [u8; 8]) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_head_too_large_for_its_field_is_refused() {
        let huge =
            Specialised { error: Some(RuntimeError { error_message: "x".repeat(70_000), ..RuntimeError::default() }) };
        assert!(matches!(head(Kind::Specialised, &huge, 0), Err(WireError::MetaTooLarge(_))));
    }
}
