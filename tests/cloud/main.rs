//! What stands in for AWS in tests, as a program: prints its endpoints as one line of JSON, and serves until its input ends.
//!
//! `cargo run --example cloud`. Each server is told by HTTP to fail on purpose: see `PUT /faults` in `tests/support/`.

#![allow(clippy::unwrap_used, reason = "a tool of the tests")]
#![allow(clippy::print_stdout, reason = "its answer to who started it")]
#![allow(clippy::disallowed_methods, reason = "it keeps a clock of its own")]
#![allow(dead_code, reason = "what only tests ask of the servers")]

#[path = "../support"]
mod support {
    pub mod dynamodb;
    pub mod faults;
    pub mod listener;
    pub mod s3;
    pub mod sqs;
}

use std::io::{Read, Write};

fn main() {
    let dynamodb = support::dynamodb::FastDynamo::start();
    let s3 = support::s3::FastS3::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sqs = runtime.block_on(support::sqs::FastSqs::start());
    let endpoints = serde_json::json!({ "dynamodb": dynamodb.endpoint(), "s3": s3.endpoint(), "sqs": sqs.endpoint() });
    println!("{endpoints}");
    std::io::stdout().flush().unwrap();
    // Who started it holds the other end, and its death closes that too.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
