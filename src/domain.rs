//! The domain: what a function, a version, an invocation and a pool *are*, and every decision about them.
//!
//! Nothing here performs I/O, reads a clock or the environment, or names a technology (HTTP, SQL, Linux, AWS, Redis, an async
//! runtime). Decisions are functions of their arguments, so each can be tested by itself; `tests/house/rooms.rs` reads this
//! folder for forbidden names.

pub mod audit;
pub mod disk;
pub mod env;
pub mod function;
pub mod ids;
pub mod invocation;
pub mod job;
pub mod key;
pub mod limits;
pub mod outcome;
pub mod page;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod principal;
pub mod rate;
pub mod scaling;
pub mod tenure;
pub mod time;
