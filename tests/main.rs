//! The one integration binary: each module proves one kind of thing, on the library or on the real executable.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic")]
#![allow(clippy::disallowed_methods, reason = "tests pass their own environment on to the processes they start")]
#![allow(clippy::print_stdout, reason = "a test's process speaks to the test that started it")]

mod api;
mod cli;
mod contract;
mod delivery;
#[cfg(feature = "aws")]
mod emulated;
mod house;
mod isolation;
mod policies;
mod runtimes;
mod sandbox;
mod shims;
mod support;
