//! The fast SQS as a program, for whoever needs it in a process of its own: prints its endpoint and serves until it is ended.
//!
//! `cargo run --example sqs -- 127.0.0.1:0 jobs jobs-dead` makes the queues that are named.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]
#![allow(clippy::disallowed_methods, reason = "it keeps a clock of its own")]
#![allow(dead_code, reason = "what only tests ask of it")]

#[path = "../sqs.rs"]
mod sqs;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = sqs::FastSqs::listen(&address).await;
    for name in arguments {
        server.create(&name, &[]);
    }
    println!("{}", server.endpoint());
    std::future::pending::<()>().await;
}
