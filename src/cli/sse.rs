//! Server-sent events as they come off the wire: bytes in, events out, in pieces of any size.

/// An event is at most a record; what is larger is no event of ours.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `queued`, `started`, `log`, `result`.
    pub name: String,
    pub id: String,
    pub data: String,
}

/// Collects bytes until an event is whole.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    event: Event,
    bytes: usize,
}

impl Events {
    /// Takes in a piece and gives the events that it completes.
    ///
    /// # Errors
    /// A sentence, when an event grows beyond all bounds.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, String> {
        let mut whole = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.buffer.extend_from_slice(part);
            self.bytes += part.len();
            if self.bytes > EVENT_BYTES_MAX {
                return Err(format!("an event is larger than {EVENT_BYTES_MAX} bytes"));
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.buffer);
                whole.extend(self.line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(whole)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            self.bytes = 0;
            let event = std::mem::take(&mut self.event);
            return (event != Event::default()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => value.clone_into(&mut self.event.id),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment (an empty field: the server's keep-alive) or a field of no use here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        ": hello\n\nid: 1\nevent: queued\ndata: {}\n\nid: 2\r\nevent: log\r\ndata: a\r\ndata: b\r\n\r\n";

    fn event(name: &str, id: &str, data: &str) -> Event {
        Event { name: name.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_events(sizes in proptest::collection::vec(1_usize..9, 1..100)) {
            let mut events = Events::default();
            let mut seen = Vec::new();
            let mut rest = STREAM.as_bytes();
            for size in sizes.into_iter().chain([STREAM.len()]) {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                seen.extend(events.push(piece).unwrap());
                rest = after;
            }
            prop_assert_eq!(seen, vec![event("queued", "1", "{}"), event("log", "2", "a\nb")]);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 4 + 1];
        let refused = (0..4).any(|_| events.push(&piece).is_err());
        assert!(refused);
    }
}
