//! The one integration binary: each module proves one kind of thing, on the library or on the real executable.

mod api;
mod delivery;
mod isolation;
mod runtimes;
mod support;
