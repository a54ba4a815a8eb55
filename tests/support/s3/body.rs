//! A request's body: taken out of its chunks, and held to the digests that came with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use super::Call;
use super::refusal::Refusal;

pub fn checked(call: &Call<'_>, body: Bytes) -> Result<Bytes, Refusal> {
    let declared = call.header("x-amz-content-sha256").unwrap_or_default();
    let body = if declared.starts_with("STREAMING-") { unchunked(&body)? } else { body };
    if declared.len() == 64 && !declared.eq_ignore_ascii_case(&hex::encode(Sha256::digest(&body))) {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(Refusal::new(400, "XAmzContentSHA256Mismatch", message));
    }
    let message = "The Content-MD5 or checksum value that you specified did not match what the server received.";
    if call.header("content-md5").is_some_and(|given| given != BASE64.encode(Md5::digest(&body))) {
        return Err(Refusal::new(400, "BadDigest", message));
    }
    // Of the checksums that a client may choose from only this one is held to; the others are let pass.
    if call.header("x-amz-checksum-sha256").is_some_and(|given| given != BASE64.encode(Sha256::digest(&body))) {
        return Err(Refusal::new(400, "BadDigest", message));
    }
    Ok(body)
}

/// `aws-chunked`: each chunk is its length in hexadecimal, perhaps a signature, and its bytes; trailers follow the last.
fn unchunked(body: &[u8]) -> Result<Bytes, Refusal> {
    let wrong = || Refusal::new(400, "IncompleteBody", "The request body terminated unexpectedly");
    let mut whole = BytesMut::with_capacity(body.len());
    let mut rest = body;
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n").ok_or_else(wrong)?;
        let head = std::str::from_utf8(&rest[..line]).map_err(|_| wrong())?;
        let length = usize::from_str_radix(head.split(';').next().unwrap_or_default(), 16).map_err(|_| wrong())?;
        rest = &rest[line + 2..];
        if length == 0 {
            return Ok(whole.freeze());
        }
        whole.extend_from_slice(rest.get(..length).ok_or_else(wrong)?);
        rest = rest[length..].strip_prefix(b"\r\n").ok_or_else(wrong)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let body = b"5;chunk-signature=x\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(&unchunked(body).unwrap()[..], b"hello world");
        for wrong in [&b"5\r\nhell"[..], b"hello", b"5\r\nhelloX\r\n0\r\n", b""] {
            assert!(unchunked(wrong).is_err());
        }
    }
}
