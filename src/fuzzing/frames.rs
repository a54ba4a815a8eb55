//! What a sandbox sends, from its first byte to the value in a record.

use crate::runtime::wire::{HEADER_BYTES, Header, Kind, ResultMeta, Specialised};
use crate::sandbox::frames::{Frames, SMALL_BYTES, Taken};
use crate::worker::value;

/// Which frame is due, how long its body may be and how the stream is cut come first; the stream follows.
pub fn frames(bytes: &[u8]) {
    let [due, body_max, piece, stream @ ..] = bytes else { return };
    let due = [Kind::Ready, Kind::Specialised, Kind::Result][usize::from(*due) % 3];
    let body_bytes_max = u64::from(*body_max) * 64;
    let bound = HEADER_BYTES + usize::from(u16::MAX) + body_bytes_max as usize + SMALL_BYTES;
    let mut frames = Frames::default();
    let (mut begin, mut end) = (0, 0);
    for piece in stream.chunks(usize::from(*piece) * 16 + 1) {
        frames.space().extend_from_slice(piece);
        end += piece.len();
        assert!(frames.kept_bytes() <= bound, "{} bytes kept", frames.kept_bytes());
        match frames.take(due, body_bytes_max) {
            Ok(Taken::Partial) => {}
            Ok(Taken::Frame { meta, body }) => {
                assert!(body.len() as u64 <= body_bytes_max);
                assert!(frames.is_empty());
                let (meta_bytes, body_bytes) =
                    (meta.len().try_into().expect("by its type"), body.len().try_into().expect("by its type"));
                let header = Header { kind: due, meta_bytes, body_bytes }.encode();
                assert!([&header[..], &meta, &body].concat() == stream[begin..end], "read other than what was sent");
                begin = end;
                understand(&meta, &body);
            }
            Ok(Taken::TooLarge(announced)) => return assert!(announced > body_bytes_max),
            Err(_) => return,
        }
    }
}

fn understand(meta: &[u8], body: &[u8]) {
    let _ = serde_json::from_slice::<Specialised>(meta);
    if let Ok(meta) = serde_json::from_slice::<ResultMeta>(meta) {
        let again: ResultMeta =
            serde_json::from_slice(&serde_json::to_vec(&meta).expect("written")).expect("read again");
        assert_eq!(again.id, meta.id);
    }
    if let Ok(value) = value::checked(body) {
        let around = format!("{{\"result\":{},\"end\":7}}", value.get());
        let read: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
            serde_json::from_str(&around).expect("whole");
        assert_eq!((read.len(), read["result"].get(), read["end"].get()), (2, value.get(), "7"));
    }
}
