//! A multipart body in pieces, and the progress of sending it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A piece goes out at once and moves the progress.
const PIECE_BYTES: usize = 64 * 1024;

/// Fields, and one file, as `multipart/form-data`.
#[derive(Debug)]
pub struct Upload {
    pieces: VecDeque<Bytes>,
    total: u64,
    left: u64,
    progress: bool,
    percent: u64,
}

impl Upload {
    /// The body and the value of its `content-type`.
    pub fn new(fields: &[(&str, String)], file_name: &str, file: Vec<u8>) -> (Self, String) {
        let boundary = format!("faasd-{}", uuid::Uuid::new_v4().simple());
        let mut head = String::new();
        for (name, value) in fields {
            // Writing to a `String` can't fail.
            let _ = write!(head, "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        let file_name: String = file_name.chars().map(|c| if c.is_control() || c == '"' { '_' } else { c }).collect();
        let _ = write!(
            head,
            "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        let mut pieces = VecDeque::from([Bytes::from(head)]);
        let mut file = Bytes::from(file);
        while !file.is_empty() {
            pieces.push_back(file.split_to(file.len().min(PIECE_BYTES)));
        }
        pieces.push_back(Bytes::from(format!("\r\n--{boundary}--\r\n")));
        let total = pieces.iter().map(|piece| piece.len() as u64).sum();
        let progress = std::io::stderr().is_terminal();
        let upload = Self { pieces, total, left: total, progress, percent: 0 };
        (upload, format!("multipart/form-data; boundary={boundary}"))
    }

    fn tell(&mut self) {
        let percent = (self.total - self.left) * 100 / self.total.max(1);
        if self.progress && percent != self.percent {
            self.percent = percent;
            let end = if self.left == 0 { "\n" } else { "" };
            eprint!("\ruploading {percent:3} % of {} KiB{end}", self.total.div_ceil(1024));
            // Progress that does not show is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.left -= piece.len() as u64;
            self.tell();
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn the_body_is_as_long_as_it_says_and_holds_all() {
        let file = vec![7_u8; PIECE_BYTES * 2 + 5];
        let (upload, kind) = Upload::new(&[("x-runtime", "python".to_owned())], "a\"b.zip", file.clone());
        let said = upload.size_hint().exact().unwrap();
        let bytes = upload.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len() as u64, said);
        let boundary = kind.split_once("boundary=").unwrap().1;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with(&format!("--{boundary}\r\n")) && text.ends_with(&format!("\r\n--{boundary}--\r\n")));
        assert!(text.contains("name=\"x-runtime\"\r\n\r\npython\r\n") && text.contains("filename=\"a_b.zip\""));
        assert!(bytes.windows(file.len()).any(|window| window == file));
    }
}
