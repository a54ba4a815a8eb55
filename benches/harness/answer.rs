//! Reading answers: as little of HTTP/1.1 as the daemon speaks to a client that asks for nothing special.

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record says SUCCESS, from a sandbox of this very function or not; or the call was accepted.
    Done { warm: bool },
    /// 429 or 503: the platform said no, early.
    Refused,
    /// Anything else.
    Failed,
}

/// Where in the bytes the answer ends, once all of it is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub body_from: usize,
    pub end: usize,
}

const HEAD_END: &[u8] = b"\r\n\r\n";
/// Records begin with ids and status, so that nobody has to look further than this.
const STATUS_WITHIN: usize = 400;

pub fn read(bytes: &[u8]) -> Option<Answer> {
    let body_from = find(bytes, HEAD_END)? + HEAD_END.len();
    let head = &bytes[..body_from];
    let end = body_from + content_length(head)?;
    let body = bytes.get(body_from..end)?;
    Some(Answer { verdict: verdict(head, body), body_from, end })
}

fn verdict(head: &[u8], body: &[u8]) -> Verdict {
    let start = &body[..body.len().min(STATUS_WITHIN)];
    match head.get(9..12) {
        Some(b"200") if find(start, br#""status":"SUCCESS""#).is_some() => {
            Verdict::Done { warm: find(body, br#""startType":"WARM""#).is_some() }
        }
        Some(b"202") => Verdict::Done { warm: false },
        Some(b"429" | b"503") => Verdict::Refused,
        _ => Verdict::Failed,
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

/// By the needle's first byte, which is rare enough here.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == needle[0]) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
