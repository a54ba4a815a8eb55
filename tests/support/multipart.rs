//! A `multipart/form-data` body for `POST /upload`.

use http::Method;

use super::client::{Client, Request};

const BOUNDARY: &str = "----faasd-test-boundary";

#[derive(Default)]
pub struct Form {
    body: Vec<u8>,
}

impl Form {
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.head(&format!("name=\"{name}\""));
        self.body.extend_from_slice(value.as_bytes());
        self.body.extend_from_slice(b"\r\n");
        self
    }

    pub fn file(mut self, file_name: &str, bytes: &[u8]) -> Self {
        self.head(&format!("name=\"file\"; filename=\"{file_name}\""));
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    fn head(&mut self, disposition: &str) {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        self.body.extend_from_slice(head.as_bytes());
    }

    pub fn upload(mut self, client: &Client) -> Request {
        self.body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        client
            .request(Method::POST, "/upload")
            .header("content-type", &format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(self.body)
    }
}
