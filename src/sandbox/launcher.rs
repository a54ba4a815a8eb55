//! The launcher: a process of its own, started before the async runtime, that makes sandboxes.
//!
//! It is the same executable, single-threaded and tiny, in a mount namespace of its own, because the cost of a fork grows with the
//! parent's memory and mount table, and because fork in a threaded process is unsafe. It takes requests over one seqpacket
//! socket (its standard input), one message each, and trusts the daemon. When the daemon dies it reads end-of-file, ends every sandbox
//! and goes; its mounts go with its namespace, its children by their parent-death signal even if it is killed itself.
//!
//! ```text
//! daemon → Setup                                   launcher → Ready | Failed
//!                                                  launcher → Zygote   (unasked: one serves, or has ended)
//! daemon → Start{slot, …} + descriptors            launcher → Started{slot, pid} + pidfd, listener | Failed{slot, …}
//! daemon → Mount{slot, code, …} + descriptor       launcher → Mounted{slot} | Failed{slot, …}
//! daemon → Release{slot}   (the sandbox has ended; no answer)
//! ```

mod child;
mod first;
mod landlock;
mod make;
mod moulds;
mod namespace;
mod networks;
mod proc;
pub mod protocol;
mod serve;
mod template;
mod time;
mod zygote;

pub use serve::main;
