//! The value that a sandbox says its handler returned, before anybody else sees it: JSON as a whole, in UTF-8, and not nested beyond
//! what readers take. It goes into answers and records as it is, so nothing in it may end or open anything of theirs.

use std::sync::Arc;

use serde_json::value::RawValue;

/// Recursive readers give up somewhere beyond (CPython's at about a thousand) or overflow their stack.
const DEPTH_MAX: usize = 1000;

/// The value, or what is wrong with it as the end of a sentence that begins with "returned".
pub fn checked(bytes: &[u8]) -> Result<Arc<RawValue>, String> {
    let value: Box<RawValue> = serde_json::from_slice(bytes).map_err(|error| format!("what is not JSON: {error}"))?;
    if is_too_deep(value.get()) {
        return Err(format!("JSON nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(value.into())
}

/// Of valid JSON.
fn is_too_deep(json: &str) -> bool {
    // Each level is opened and closed; short values need no look, and of others a count of brackets nearly always decides.
    if json.len() <= 2 * DEPTH_MAX || json.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_json_passes_as_it_is() {
        for text in [
            "null",
            " {\"a\": [1, 2.5e-3, true]} ",
            "1e999",
            "{\"a\":1,\"a\":2}",
            r#""\u0000\ud800""#,
            "\"{[\\\"{[\"",
            "123456789012345678901234567890",
        ] {
            assert_eq!(checked(text.as_bytes()).unwrap().get(), text.trim(), "{text}");
        }
    }

    #[test]
    fn what_could_break_the_frame_around_it_is_refused() {
        for bytes in [
            &b""[..],
            b"1,\"status\":\"SUCCESS\"",
            b"1}",
            b"{\"a\":1}}",
            b"[1",
            b"\"a\0b\"",
            b"\"a\nb\"",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"NaN",
            b"Infinity",
            b"01",
            b"'a'",
            b"1 2",
            b"\xef\xbb\xbf1",
            b"\"\\x\"",
            b"1\0",
        ] {
            assert!(checked(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn nesting_is_bounded_without_a_stack_of_its_depth() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(checked(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(checked(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err().contains("1000"));
        assert!(checked(nested(3_000_000).as_bytes()).is_err());
        let wide = format!("[{}\"{}\"]", "[],".repeat(5000), "[".repeat(5000));
        assert!(checked(wide.as_bytes()).is_ok(), "breadth and text are no depth");
    }

    proptest! {
        #[test]
        fn whatever_passes_keeps_the_answer_around_it_whole(text in "[\\[\\]{}\",:0-9eEtrufalsn\\\\ \n-]{0,24}") {
            if let Ok(value) = checked(text.as_bytes()) {
                let answer = format!("{{\"result\":{},\"end\":7}}", value.get());
                let read: serde_json::Map<String, serde_json::Value> = match serde_json::from_str(&answer) {
                    Ok(read) => read,
                    // A number beyond f64, which JSON allows.
                    Err(error) => {
                        prop_assert!(error.to_string().contains("out of range"), "{}", error);
                        return Ok(());
                    }
                };
                prop_assert_eq!(read.len(), 2);
                prop_assert_eq!(&read["end"], 7);
            }
        }
    }
}
