//! Why a request is refused: a code that clients decode, in XML.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::xml;

#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: &'static str,
    message: &'static str,
}

pub type Answer = Result<Response<Full<Bytes>>, Refusal>;

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    pub fn no_key() -> Self {
        Self::new(404, "NoSuchKey", "The specified key does not exist.")
    }

    pub fn precondition() -> Self {
        Self::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    }

    pub fn invalid(message: &'static str) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    pub fn not_implemented() -> Self {
        Self::new(501, "NotImplemented", "This server does not do that.")
    }

    pub fn response(&self, key: &str) -> Response<Full<Bytes>> {
        if self.status == 304 {
            return empty(304);
        }
        let fields = [("Code", self.code), ("Message", self.message), ("Key", key)];
        let fields: String = fields.iter().map(|(name, text)| xml::element(name, &xml::escaped(text))).collect();
        let mut response = xml::response(&xml::element("Error", &fields));
        *response.status_mut() = http::StatusCode::from_u16(self.status).unwrap();
        response
    }
}

pub fn empty(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}
