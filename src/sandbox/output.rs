//! What a function prints: kept up to a bound, told line by line while it runs, the rest counted and dropped.

use crate::domain::outcome::Output;
use crate::ports::sandbox::{LogSink, Stream};

/// A line longer than this is told in pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// One of stdout and stderr, of one call.
#[derive(Debug)]
pub struct Capture {
    stream: Stream,
    keep_bytes: usize,
    kept: Vec<u8>,
    total_bytes: u64,
    /// The unfinished last line, for the sink.
    line: Vec<u8>,
}

impl Capture {
    pub fn new(stream: Stream, keep_bytes: u64) -> Self {
        Self { stream, keep_bytes: keep_bytes as usize, kept: Vec::new(), total_bytes: 0, line: Vec::new() }
    }

    pub fn is_truncated(&self) -> bool {
        self.total_bytes > self.kept.len() as u64
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8], sink: Option<&dyn LogSink>) {
        self.total_bytes += bytes.len() as u64;
        let room = self.keep_bytes - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if let Some(sink) = sink {
            self.tell(bytes, sink);
        }
    }

    fn tell(&mut self, bytes: &[u8], sink: &dyn LogSink) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            sink.line(self.stream, &String::from_utf8_lossy(&self.line));
            self.line.clear();
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LINE_BYTES_MAX {
            sink.line(self.stream, &String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }

    /// Tells an unfinished last line, and gives the text, marked where it was cut.
    pub fn finish(mut self, sink: Option<&dyn LogSink>) -> Output {
        if let (Some(sink), false) = (sink, self.line.is_empty()) {
            sink.line(self.stream, &String::from_utf8_lossy(&self.line));
        }
        let truncated = self.is_truncated();
        if truncated {
            // Not in the middle of a character.
            let valid = match std::str::from_utf8(&self.kept) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => self.kept.len(),
            };
            self.kept.truncate(valid);
        }
        let mut text = match String::from_utf8(self.kept) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        if truncated {
            text.push_str(&format!("\n[output truncated: {} of {} bytes kept]\n", self.keep_bytes, self.total_bytes));
        }
        Output { text, truncated, total_bytes: self.total_bytes }
    }
}

/// Both streams as they came, for the log artifact. Kept only when one of them was cut.
#[derive(Debug, Default)]
pub struct FullLog {
    bytes: Vec<u8>,
}

impl FullLog {
    pub fn push(&mut self, bytes: &[u8], bytes_max: u64) {
        let room = (bytes_max as usize).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub fn into_bytes(self) -> bytes::Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn line(&self, _: Stream, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }

    #[test]
    fn text_is_cut_at_the_bound_and_marked() {
        let mut capture = Capture::new(Stream::Stdout, 5);
        capture.push("abcé".as_bytes(), None);
        capture.push("fgh".as_bytes(), None);
        let output = capture.finish(None);
        assert!(output.truncated);
        assert_eq!(output.total_bytes, 8);
        assert!(output.text.starts_with("abcé\n[output truncated: 5 of 8"), "{}", output.text);
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        let mut capture = Capture::new(Stream::Stdout, 4);
        capture.push("abcé".as_bytes(), None);
        assert!(capture.finish(None).text.starts_with("abc\n[output truncated"));
    }

    #[test]
    fn lines_are_told_whole_however_they_arrive() {
        let (lines, mut capture) = (Lines::default(), Capture::new(Stream::Stderr, 100));
        for piece in ["on", "e\ntwo\nthr", "ee"] {
            capture.push(piece.as_bytes(), Some(&lines));
        }
        assert_eq!(capture.finish(Some(&lines)).text, "one\ntwo\nthree");
        assert_eq!(*lines.0.lock().unwrap(), ["one", "two", "three"]);
    }
}
