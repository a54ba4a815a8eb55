//! What a program that runs once per call printed on stdout: lines of log, and its value.
//!
//! The value is the whole text where that is JSON, else the last line where that is, else the text as a JSON string. Text that can
//! still be one JSON document is held back until the program ends; of any other the lines go on as they come, all but the last,
//! so that what was printed is not lost when the program must be killed.

use std::io::{self, Write};

/// The largest value, and a little: what is longer counts as log, except its last line.
const VALUE_BYTES_MAX: usize = 6 * 1024 * 1024 + 65_536;

/// What of the text is the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Json(Vec<u8>),
    /// Longer than a value may be, and its last line is no JSON.
    TooLong,
}

#[derive(Default)]
pub(super) struct Printed {
    text: Vec<u8>,
    /// Bytes from the beginning of `text` that went to the log.
    logged: usize,
    /// Whether all of it may be one JSON document; unknown before the first visible byte.
    may_be_json: Option<bool>,
    too_long: bool,
}

impl Printed {
    /// Takes what was printed next; writes to `log` what is certainly not the value.
    pub fn add(&mut self, bytes: &[u8], log: &mut impl Write) -> io::Result<()> {
        self.text.extend_from_slice(bytes);
        if self.may_be_json.is_none() {
            let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
            self.may_be_json =
                first.map(|byte| matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'));
        }
        let long = self.text.len() > VALUE_BYTES_MAX;
        // Blank so far is held back as well: it may come before a document.
        if self.may_be_json != Some(false) && !long {
            return Ok(());
        }
        if long {
            self.may_be_json = Some(false);
        }
        let until = self.last_line_start().max(if long { 0 } else { self.logged });
        if until > self.logged {
            log.write_all(&self.text[self.logged..until])?;
            self.logged = until;
        }
        if long { self.forget_logged(log) } else { Ok(()) }
    }

    /// Too much to be the value: from here on only the last line counts.
    fn forget_logged(&mut self, log: &mut impl Write) -> io::Result<()> {
        self.too_long = true;
        if self.logged == 0 {
            log.write_all(&self.text)?;
            self.logged = self.text.len();
        }
        self.text.drain(..self.logged);
        self.logged = 0;
        Ok(())
    }

    /// Where the last line begins, whether or not it has its end.
    fn last_line_start(&self) -> usize {
        let before_end = self.text.len().saturating_sub(1);
        self.text[..before_end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
    }

    /// All of it is log: the program failed, or must stop now.
    pub fn flush(&mut self, log: &mut impl Write) -> io::Result<()> {
        log.write_all(&self.text[self.logged..])?;
        self.logged = self.text.len();
        Ok(())
    }

    /// The program has ended well: the log's rest goes to `log`, the value comes back.
    pub fn finish(mut self, log: &mut impl Write) -> io::Result<Value> {
        let whole = self.text.trim_ascii();
        if !self.too_long && is_json(whole) {
            return Ok(Value::Json(whole.to_vec()));
        }
        let end = self.text.trim_ascii_end().len();
        let start = self.text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last_line = self.text[start..end].trim_ascii();
        if is_json(last_line) {
            let value = last_line.to_vec();
            if start > self.logged {
                log.write_all(&self.text[self.logged..start])?;
            }
            return Ok(Value::Json(value));
        }
        self.flush(log)?;
        if self.too_long {
            return Ok(Value::TooLong);
        }
        Ok(Value::Json(to_json(&self.text)))
    }
}

/// Text that was meant as a value but is no JSON: as a JSON string; nothing at all as `null`.
pub(super) fn to_json(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text.trim_ascii());
    if text.is_empty() { b"null".to_vec() } else { serde_json::Value::from(text).to_string().into_bytes() }
}

pub(super) fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (log, value) of a text that comes in pieces.
    fn read(pieces: &[&[u8]]) -> (String, Value) {
        let (mut printed, mut log) = (Printed::default(), Vec::new());
        for piece in pieces {
            printed.add(piece, &mut log).unwrap();
        }
        let value = printed.finish(&mut log).unwrap();
        (String::from_utf8_lossy(&log).into_owned(), value)
    }

    fn json(text: &str) -> Value {
        Value::Json(text.as_bytes().to_vec())
    }

    #[test]
    fn the_value_is_the_text_or_its_last_line_or_a_string() {
        for (text, log, value) in [
            ("{\"a\": 1}\n", "", "{\"a\": 1}"),
            ("{\n \"a\": 1\n}\n", "", "{\n \"a\": 1\n}"),
            ("starting\ndone\n[1]\n", "starting\ndone\n", "[1]"),
            ("[info] starting\n{\"a\":1}\n\n", "[info] starting\n", "{\"a\":1}"),
            ("hello", "hello", "\"hello\""),
            ("two\nlines\n", "two\nlines\n", "\"two\\nlines\""),
            ("", "", "null"),
            ("\n \n", "\n \n", "null"),
        ] {
            assert_eq!(read(&[text.as_bytes()]), (log.to_owned(), json(value)), "{text:?}");
        }
    }

    #[test]
    fn lines_go_on_before_the_end() {
        let (mut printed, mut log) = (Printed::default(), Vec::new());
        printed.add(b"one\ntwo\nthr", &mut log).unwrap();
        assert_eq!(log, b"one\ntwo\n");
        printed.flush(&mut log).unwrap();
        assert_eq!(log, b"one\ntwo\nthr");
    }

    #[test]
    fn an_endless_text_is_bounded_and_all_log() {
        let (mut printed, mut log) = (Printed::default(), Vec::new());
        let line = [b'1'; 1000];
        for _ in 0..20_000 {
            printed.add(&line, &mut log).unwrap();
            assert!(printed.text.len() <= VALUE_BYTES_MAX + line.len());
        }
        printed.add(b"\nend", &mut log).unwrap();
        assert_eq!(printed.finish(&mut log).unwrap(), Value::TooLong);
        assert_eq!(log.len(), 20_000_004);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_pieces_do_not_matter(
            lines in proptest::collection::vec("[a-z{}0-9\\[\\]]{0,6}", 0..6), cut in 0_usize..40,
        ) {
            let text = lines.join("\n");
            let cut = cut.min(text.len());
            let whole = read(&[text.as_bytes()]);
            prop_assert_eq!(&whole, &read(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]));
            let Value::Json(value) = whole.1 else { panic!("short") };
            prop_assert!(is_json(&value));
            prop_assert!(text.starts_with(&whole.0));
        }
    }
}
