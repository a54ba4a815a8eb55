//! Sandboxes on Linux: the launcher that makes them, the walls around them, and the driver that the worker calls.
//!
//! `sys` is the one room with `unsafe`. Nothing that comes out of a sandbox is believed: sizes, order and timing are bounded here.

pub mod cgroup;
mod channel;
mod driver;
mod environment;
mod files;
pub mod frames;
mod groups;
mod instance;
pub mod interpreters;
mod launch;
pub mod launcher;
mod output;
mod process;
mod quarantine;
pub mod seccomp;
mod socket;
mod stock;
mod sys;
mod zygotes;

pub use driver::LinuxSandboxes;
pub use sys::landlock::landlock_version;
pub use sys::memory::{release_code, release_heap};
pub use sys::{fork_known, inherited};
