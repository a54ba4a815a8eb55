//! News as bytes.
//!
//! ```text
//! message = format (1 byte) origin (16) news*          a node takes its own messages for read
//! news    = kind (1 byte) id (16)                      kind 0, without an id: news of this node's were lost
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::domain::ids::{FunctionId, InvocationId, KeyId};
use crate::ports::bus::News;

const FORMAT: u8 = 1;
const ID_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + ID_BYTES;
/// News in one message.
pub(super) const NEWS_MAX: usize = 256;

const LOST: u8 = 0;
const FINISHED: u8 = 1;
const FUNCTION_CHANGED: u8 = 2;
const KEY_REVOKED: u8 = 3;
const CANCEL: u8 = 4;

/// What a message says, in order; `None`: something that can't be known any more, read again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub origin: Uuid,
    pub told: Vec<Option<News>>,
}

/// One message of `news`; `has_lost` says that others before them are lost.
pub(super) fn encode(origin: Uuid, has_lost: bool, news: &[News]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEAD_BYTES + 1 + news.len() * (1 + ID_BYTES));
    message.put_u8(FORMAT);
    message.put_slice(origin.as_bytes());
    if has_lost {
        message.put_u8(LOST);
    }
    for news in news {
        let (kind, id) = match news {
            News::Finished(id) => (FINISHED, id.0),
            News::FunctionChanged(id) => (FUNCTION_CHANGED, id.0),
            News::KeyRevoked(id) => (KEY_REVOKED, id.0),
            News::Cancel(id) => (CANCEL, id.0),
        };
        message.put_u8(kind);
        message.put_slice(id.as_bytes());
    }
    message.freeze()
}

/// `None`: not a message of ours, or of a format that is yet to come.
pub(super) fn decode(message: &[u8]) -> Option<Message> {
    let (&format, rest) = message.split_first()?;
    let (origin, mut rest) = rest.split_first_chunk::<ID_BYTES>()?;
    if format != FORMAT {
        return None;
    }
    let mut told = Vec::new();
    while let Some((&kind, after)) = rest.split_first() {
        if kind == LOST {
            told.push(None);
            rest = after;
            continue;
        }
        let (id, after) = after.split_first_chunk::<ID_BYTES>()?;
        let id = Uuid::from_bytes(*id);
        told.push(match kind {
            FINISHED => Some(News::Finished(InvocationId(id))),
            FUNCTION_CHANGED => Some(News::FunctionChanged(FunctionId(id))),
            KEY_REVOKED => Some(News::KeyRevoked(KeyId(id))),
            CANCEL => Some(News::Cancel(InvocationId(id))),
            // From a newer faasd, in a rolling upgrade.
            _ => None,
        });
        rest = after;
        if told.len() > NEWS_MAX + 1 {
            return None;
        }
    }
    Some(Message { origin: Uuid::from_bytes(*origin), told })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_news() -> impl Strategy<Value = News> {
        (0..4, any::<u128>()).prop_map(|(kind, id)| {
            let id = Uuid::from_u128(id);
            match kind {
                0 => News::Finished(InvocationId(id)),
                1 => News::FunctionChanged(FunctionId(id)),
                2 => News::KeyRevoked(KeyId(id)),
                _ => News::Cancel(InvocationId(id)),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(origin: u128, has_lost: bool, news in prop::collection::vec(any_news(), 0..NEWS_MAX)) {
            let origin = Uuid::from_u128(origin);
            let bytes = encode(origin, has_lost, &news);
            let told = has_lost.then_some(None).into_iter().chain(news.into_iter().map(Some)).collect();
            prop_assert_eq!(decode(&bytes), Some(Message { origin, told }));
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..10_000)) {
            if let Some(message) = decode(&bytes) {
                prop_assert!(message.told.len() <= NEWS_MAX + 1);
            }
        }
    }

    #[test]
    fn what_is_not_known_says_read_again() {
        let mut bytes = encode(Uuid::nil(), false, &[News::Cancel(InvocationId(Uuid::nil()))]).to_vec();
        bytes[HEAD_BYTES] = 200;
        assert_eq!(decode(&bytes), Some(Message { origin: Uuid::nil(), told: vec![None] }));
        bytes[0] = 9;
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(b""), None);
    }
}
