//! The fleet: how the controllers of one process call the workers of others.
//!
//! ```text
//! controller ─► Fleet (an Executor) ─► placement, claims ─► Link ══ HTTP/2 ══► Server ─► Host (the worker)
//!                                        ▲ roster              answers, lines     │
//!                                        └──── heartbeats, claims offered ◄───────┘
//! ```
//!
//! Neither end believes the other: heads and frames are bounded and checked, a worker that answers with anything else costs one more
//! try elsewhere and is left alone for a while. It knows ports only.

mod address;
mod address_metrics;
mod alone;
mod answer;
mod called;
mod connection;
mod heart;
mod held;
mod identity;
mod ledger;
mod link;
mod links;
mod metrics;
mod offers;
mod scale;
mod sender;
mod server;
mod taps;
mod tls;
mod together;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use address::{AddressPorts, Keeper, Keeping};
pub use alone::{Heard, watch_alone};
pub use heart::beat;
pub use identity::{Secret, SecretError};
pub use metrics::Metrics;
pub use offers::offer;
pub use scale::{Scaling, scale};
pub use sender::{Fleet, FleetPorts};
pub use server::{Access, Server, serve};
pub use tls::{FleetTls, FleetTlsError};
pub use together::Together;

/// How long a controller may use a claim that a worker let it keep after a call …
const HELD_FOR: Duration = Duration::from_millis(300);
/// … and how long the worker leaves that sandbox to it: longer, for the way and for clocks that run apart.
const KEPT_FOR: Duration = Duration::from_millis(400);
