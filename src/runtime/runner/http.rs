//! As much of HTTP/1.1 as clients of the Runtime API speak: requests read out of a buffer, responses written into one.

/// awslambdaric sends the whole trace of an error in a header, up to a megabyte.
const HEAD_BYTES_MAX: usize = 1024 * 1024 + 65_536;
const HEADERS_MAX: usize = 64;
/// Well above any configured result size; what is between is the daemon's to refuse.
pub(super) const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub method: Method,
    pub path: String,
    /// `Lambda-Runtime-Function-Error-Type`.
    pub error_type: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed; whether the client waits for `100 Continue` before it sends them.
    Partial { expects_continue: bool },
    /// A request, and how many bytes it took.
    Complete(Request, usize),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    /// The head.
    TooLarge,
    /// The body of a request of this path.
    BodyTooLarge {
        path: String,
    },
}

enum Length {
    Bytes(usize),
    Chunked,
}

enum Body {
    Partial,
    /// And the bytes that it took in the buffer.
    Whole(Vec<u8>, usize),
    TooLarge,
}

/// Reads the request at the beginning of `buffer`.
pub(super) fn parse(buffer: &[u8]) -> Result<Progress, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(buffer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buffer.len() > HEAD_BYTES_MAX => return Err(Refused::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(Progress::Partial { expects_continue: false }),
        Err(_) => return Err(Refused::Malformed),
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let path = head.path.unwrap_or_default();
    let rest = &buffer[head_bytes..];
    let body = match length(header("transfer-encoding"), header("content-length"))? {
        Length::Bytes(bytes) if bytes > BODY_BYTES_MAX => Body::TooLarge,
        Length::Bytes(bytes) => rest.get(..bytes).map_or(Body::Partial, |body| Body::Whole(body.to_vec(), bytes)),
        Length::Chunked => chunked(rest)?,
    };
    let (body, body_bytes) = match body {
        Body::Whole(body, bytes) => (body, bytes),
        Body::TooLarge => return Err(Refused::BodyTooLarge { path: path.to_owned() }),
        Body::Partial => {
            let asks = header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
            return Ok(Progress::Partial { expects_continue: asks });
        }
    };
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let error_type = header("lambda-runtime-function-error-type").map(str::to_owned);
    let path = path.to_owned();
    Ok(Progress::Complete(Request { method, path, error_type, body }, head_bytes + body_bytes))
}

fn length(encoding: Option<&str>, length: Option<&str>) -> Result<Length, Refused> {
    match (encoding, length) {
        (Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
        (Some(_), _) => Err(Refused::Malformed),
        (None, None) => Ok(Length::Bytes(0)),
        (None, Some(digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            // More than fits the number is more than fits the bound.
            Ok(Length::Bytes(digits.parse().unwrap_or(usize::MAX)))
        }
        (None, Some(_)) => Err(Refused::Malformed),
    }
}

/// A chunked body. Walks the chunk heads first and copies once.
fn chunked(buffer: &[u8]) -> Result<Body, Refused> {
    let mut parts = Vec::new();
    let mut total = 0;
    let mut at = 0;
    loop {
        let (head, size) = match httparse::parse_chunk_size(&buffer[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(Body::Partial),
            Err(_) => return Err(Refused::Malformed),
        };
        at += head;
        if size == 0 {
            let Some(trailers) = trailers_bytes(&buffer[at..]) else { return Ok(Body::Partial) };
            return Ok(Body::Whole(parts.concat(), at + trailers));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        total = size.saturating_add(total);
        if total > BODY_BYTES_MAX {
            return Ok(Body::TooLarge);
        }
        let Some(data) = buffer.get(at..at + size) else { return Ok(Body::Partial) };
        match buffer.get(at + size..at + size + 2) {
            Some(b"\r\n") => parts.push(data),
            Some(_) => return Err(Refused::Malformed),
            None => return Ok(Body::Partial),
        }
        at += size + 2;
    }
}

/// Bytes of the trailer lines and the empty line after them.
fn trailers_bytes(buffer: &[u8]) -> Option<usize> {
    if buffer.starts_with(b"\r\n") {
        return Some(2);
    }
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// A response of JSON.
pub(super) fn json_response(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A refusal in the Runtime API's form.
pub(super) fn error_response(status: &str, error_type: &str, message: &str) -> Vec<u8> {
    json_response(status, &serde_json::json!({ "errorMessage": message, "errorType": error_type }).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(text: &[u8]) -> (Request, usize) {
        match parse(text) {
            Ok(Progress::Complete(request, bytes)) => (request, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_ends_where_its_length_says() {
        let text = b"POST /x HTTP/1.1\r\ncontent-length: 3\r\nLambda-Runtime-Function-Error-Type: E\r\n\r\nabcGET";
        let (request, bytes) = complete(text);
        assert_eq!((request.method, request.path.as_str(), request.body.as_slice()), (Method::Post, "/x", &b"abc"[..]));
        assert_eq!((request.error_type.as_deref(), bytes), (Some("E"), text.len() - 3));
    }

    #[test]
    fn chunks_are_joined_and_trailers_skipped() {
        let text =
            b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text[..end]), Ok(Progress::Partial { .. })), "{end}");
        }
        let (request, bytes) = complete(text);
        assert_eq!((request.body.as_slice(), bytes), (&b"abcde"[..], text.len()));
    }

    #[test]
    fn who_expects_a_continue_is_known() {
        let text = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(parse(text), Ok(Progress::Partial { expects_continue: true }));
    }

    #[test]
    fn what_is_too_large_or_no_http_is_refused() {
        let huge = format!("POST /x HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        let too_large = |path: &str| Err(Refused::BodyTooLarge { path: path.to_owned() });
        assert_eq!(parse(huge.as_bytes()), too_large("/x"));
        assert_eq!(parse(b"POST /y HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), too_large("/y"));
        assert_eq!(parse(b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Err(Refused::Malformed));
        assert_eq!(
            parse(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
            Err(Refused::Malformed)
        );
        assert_eq!(parse(b"\x16\x03\x01"), Err(Refused::Malformed));
        assert_eq!(parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff0\r\n"), too_large("/"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let chunked = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), bytes].concat();
            let _ = parse(&chunked);
        }
    }
}
