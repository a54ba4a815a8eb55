//! That code in a sandbox sees and harms nothing but its own, and that what it used is measured.

pub mod attacks;
mod calls;
mod failures;
mod limits;
mod needs;
mod proc;
mod reaper;
mod runtime_api;
mod surroundings;
mod usage;
mod walls;
mod wire;
mod zygote;
