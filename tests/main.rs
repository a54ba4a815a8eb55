//! The one integration binary: each module proves one kind of thing, on the library or on the real executable.

mod api;
mod cli;
mod contract;
mod delivery;
mod house;
mod isolation;
mod runtimes;
mod sandbox;
mod shims;
mod support;
