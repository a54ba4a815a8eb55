//! New identifiers and secrets. Random bits are fetched from the kernel in blocks, because one id is made per request.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::domain::ids::{FunctionId, InvocationId, KeyId};
use crate::domain::time::Timestamp;

const BLOCK: usize = 2048;
/// Random bits of one id: what version 7 leaves beside its time.
const ID_BYTES: usize = 10;

struct Block {
    bytes: [u8; BLOCK],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK], used: BLOCK }) };
}

/// A version 7 id: ids made later sort later, to the millisecond.
fn id(now: Timestamp) -> Uuid {
    let random = RANDOM.with_borrow_mut(|block| {
        if block.used + ID_BYTES > BLOCK {
            fill(&mut block.bytes);
            block.used = 0;
        }
        let mut out = [0; ID_BYTES];
        out.copy_from_slice(&block.bytes[block.used..block.used + ID_BYTES]);
        block.used += ID_BYTES;
        out
    });
    uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid()
}

/// # Panics
/// If the kernel has no random numbers to give; then there is nothing safe to go on with.
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random source answers on every kernel we start on");
}

pub fn invocation_id(now: Timestamp) -> InvocationId {
    InvocationId(id(now))
}

pub fn function_id(now: Timestamp) -> FunctionId {
    FunctionId(id(now))
}

pub fn key_id(now: Timestamp) -> KeyId {
    KeyId(id(now))
}

/// `fk_` and 43 characters of base64url: 256 random bits.
pub fn secret() -> String {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    format!("fk_{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_sort_by_time() {
        let many: std::collections::HashSet<_> = (0..1000).map(|_| invocation_id(Timestamp(5))).collect();
        assert_eq!(many.len(), 1000);
        assert!(invocation_id(Timestamp(5)) < invocation_id(Timestamp(6)));
        let secret = secret();
        assert_eq!(secret.len(), 46);
        assert!(secret.starts_with("fk_"));
    }
}
