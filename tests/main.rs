//! The integration tests, one binary, by what they prove.

mod sandbox;
mod shims;
