//! Policies: small decisions that others swap or tune without opening the rooms that ask.

pub mod advice;
pub mod evict;
pub mod idle;
pub mod keep_alive;
pub mod learned;
pub mod retry;
