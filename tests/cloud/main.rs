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

#[tokio::main]
async fn main() {
    let sqs = support::sqs::FastSqs::start().await;
    let dynamodb = support::dynamodb::FastDynamo::start();
    let s3 = support::s3::FastS3::start();
    println!("{}", serde_json::json!({ "dynamodb": dynamodb.endpoint(), "s3": s3.endpoint(), "sqs": sqs.endpoint() }));
    std::io::stdout().flush().unwrap();
    // Who started it holds the other end, and its death closes that too.
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}
