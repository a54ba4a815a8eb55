//! What every request's head must have beyond what the parser holds it to, and what every answer's head says to browsers.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Version};

use super::error::ApiError;

/// Half a year: long enough to count, short enough to outlive a change of mind.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=15552000");
/// Nothing here is a page: whatever is opened as one may load nothing, run nothing and be framed by nobody.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Refuses heads that two readers could understand in two ways (RFC 9112, 3.2 and 6.1).
pub fn check<B>(request: &Request<B>) -> Result<(), ApiError> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() || (first.is_none() && request.version() == Version::HTTP_11) {
        return Err(ApiError::invalid("a request must have one Host header"));
    }
    if let Some(coding) = headers.get(TRANSFER_ENCODING)
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked")
            || headers.get_all(TRANSFER_ENCODING).iter().count() > 1)
    {
        return Err(ApiError::invalid("Transfer-Encoding must be chunked, once, or be left out"));
    }
    Ok(())
}

/// Tells browsers not to keep, guess, frame or pass on what is answered.
pub fn protect(headers: &mut HeaderMap, https: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, NO_PAGE);
    if https {
        headers.insert(STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn heads_with_two_meanings_are_refused() {
        assert!(check(&request(&[("host", "x")])).is_ok());
        assert!(check(&request(&[("host", "x"), ("transfer-encoding", "Chunked")])).is_ok());
        for bad in [
            [].as_slice(),
            &[("host", "x"), ("host", "y")],
            &[("host", "x"), ("transfer-encoding", "gzip, chunked")],
            &[("host", "x"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(check(&request(bad)).is_err(), "{bad:?}");
        }
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert!(check(&old).is_ok());
    }
}
