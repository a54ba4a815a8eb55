//! How user code is loaded and called inside a sandbox, and how it gets there: the wire protocol, the language shims, the
//! native runner with the Lambda Runtime API, packages and compilation.

pub mod compile;
pub mod package;
pub mod runner;
pub mod shims;
pub mod wire;
