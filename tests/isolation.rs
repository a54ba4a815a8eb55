//! That code in a sandbox sees and harms nothing but its own, and that what it used is measured.

mod failures;
mod runtime_api;
mod surroundings;
mod usage;
mod walls;
mod wire;
