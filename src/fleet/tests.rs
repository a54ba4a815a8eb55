//! Controllers and workers over loopback: real workers on sandboxes that do what their payload says, real connections between them.

mod certificates;
mod rig;
mod together;
mod ways;
