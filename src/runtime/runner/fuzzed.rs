//! Any bytes as what a program sends to the Runtime API, and as what it prints.

use super::api::Call;
use super::daemon::fitting;
use super::http::{self, Progress};
use super::invocation::reported;
use super::printed::{self, Printed, Value};
use crate::runtime::wire::{self, Kind, Specialised};

/// Requests looked at in one stream of them.
const REQUESTS_MAX: usize = 16;

/// Panics where a promise is broken.
pub fn runtime_api(bytes: &[u8]) {
    let mut rest = bytes;
    for _ in 0..REQUESTS_MAX {
        let Ok(Progress::Complete(request, length)) = http::parse(rest) else { break };
        assert!((1..=rest.len()).contains(&length) && request.body.len() <= http::BODY_BYTES_MAX);
        // What follows a request changes nothing about it, and no part of it is taken for the whole.
        assert_eq!(http::parse(&rest[..length]), Ok(Progress::Complete(request.clone(), length)));
        for end in [length - 1, length / 2] {
            let part = http::parse(&rest[..end]);
            assert!(!matches!(part, Ok(Progress::Complete(_, of)) if of == length), "{part:?}");
        }
        match Call::of(request) {
            Call::Error { error_type, body, .. } | Call::InitError { error_type, body } => {
                let error = Some(fitting(reported(error_type, &body)));
                wire::head(Kind::Specialised, &Specialised { error }, 0).expect("it fits its frame");
            }
            Call::Response { body, .. } => {
                assert!(printed::is_json(&body) || printed::is_json(&printed::to_json(&body)));
            }
            Call::Next | Call::TooLarge { .. } | Call::Ping | Call::Unknown(_) => {}
        }
        rest = &rest[length..];
    }
    print(bytes);
}

/// However the text comes, the same value and the same log come out, and every byte is in one of them.
fn print(text: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut printed, mut log) = (Printed::default(), Vec::new());
        for piece in pieces {
            printed.add(piece, &mut log).expect("a vector takes it");
        }
        let value = printed.finish(&mut log).expect("a vector takes it");
        (log, value)
    };
    let whole = read(&[text]);
    let (begin, end) = text.split_at(text.len() / 3);
    assert_eq!(read(&[begin, end]), whole);
    if let Value::Json(value) = &whole.1 {
        assert!(printed::is_json(value));
    }
    assert!(text.starts_with(&whole.0));
}
