//! `faasd`: a function platform in one executable. Upload code, call it over HTTP; it runs in an isolated, already-warm sandbox.
//!
//! The rooms, and who may know whom (`ARCHITECTURE.md` has the whole map):
//!
//! ```text
//! main → node → {controller, worker, fleet} → ports ← {adapters, sandbox, runtime}
//!                         domain: imported by all, imports nobody
//! ```

pub mod adapters;
pub mod cli;
pub mod config;
pub mod controller;
pub mod domain;
pub mod fleet;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod node;
pub mod ports;
pub mod runtime;
pub mod sandbox;
pub mod telemetry;
pub mod worker;
