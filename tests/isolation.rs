//! That code in a sandbox sees and harms nothing but its own, and that what it used is measured.

pub mod attacks;
mod failures;
mod surroundings;
mod usage;
mod walls;
