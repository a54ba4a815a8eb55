//! What the tests of a running daemon share: the daemon, its client, archives, and what it may leave on the machine.

#![allow(clippy::disallowed_methods, reason = "a test waits on its own thread while it drops a daemon")]
#![allow(clippy::print_stderr, reason = "what a failed test's daemon said belongs on the terminal")]

pub mod archive;
pub mod certificates;
pub mod client;
pub mod daemon;
pub mod dynamodb;
pub mod faults;
pub mod footprint;
#[cfg(feature = "aws")]
pub mod imds;
pub mod listener;
#[cfg(feature = "aws")]
pub mod moto;
pub mod multipart;
pub mod platform;
pub mod s3;
pub mod signer;
pub mod slots;
#[cfg(feature = "aws")]
pub mod sqs;
pub mod sse;
pub mod surroundings;
