//! Any bytes as the body of an upload.

use axum::body::Body;
use axum::extract::FromRequest;
use axum::extract::multipart::Multipart;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::Request;

use super::{FIELD_BYTES_MAX, Form, fields};
use crate::controller::error::ApiError;

/// Small, so that it is reached.
const FILE_BYTES_MAX: u64 = 4096;
const BOUNDARY: &str = "b0undary";

/// How the body is cut into pieces comes first, the body follows; it is read as it is, and as the file of a sound form.
pub fn multipart(bytes: &[u8]) {
    let [piece, body @ ..] = bytes else { return };
    let piece = usize::from(*piece) * 8 + 1;
    if let Ok(form) = read(body, piece) {
        assert!(form.file.is_none_or(|file| file.bytes.len() as u64 <= FILE_BYTES_MAX));
        assert!(form.name.is_none_or(|name| name.len() as u64 <= FIELD_BYTES_MAX));
    }
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"code.zip\"\r\n\r\n");
    let delimiter = format!("\r\n--{BOUNDARY}");
    let sound = [head.as_bytes(), body, delimiter.as_bytes(), b"--\r\n"].concat();
    // A file that holds the boundary is no sound form.
    if !body.windows(BOUNDARY.len()).any(|window| window == BOUNDARY.as_bytes()) {
        match read(&sound, piece) {
            Ok(form) => assert_eq!(form.file.map(|file| file.bytes), Some(Bytes::copy_from_slice(body))),
            Err(_) => assert!(body.len() as u64 > FILE_BYTES_MAX, "a sound form of {} bytes is refused", body.len()),
        }
    }
}

fn read(body: &[u8], piece: usize) -> Result<Form, ApiError> {
    let pieces: Vec<_> =
        body.chunks(piece).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let request = Request::builder()
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Body::from_stream(stream::iter(pieces)))
        .expect("a request");
    let reading = async {
        let mut multipart = Multipart::from_request(request, &()).await.expect("the header is sound");
        let mut form = Form::default();
        fields(&mut multipart, &mut form, FILE_BYTES_MAX).await.map(|()| form)
    };
    reading.now_or_never().expect("all of it is there, so nothing is waited for")
}
