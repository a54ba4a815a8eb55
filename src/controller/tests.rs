//! The API in process, on ports in memory: what is fiddly and needs no sandbox.

mod abandoned;
mod access;
mod client;
mod deploy;
mod events;
mod fakes;
mod resize;
mod rig;
mod run;
mod settle;
mod wire;
