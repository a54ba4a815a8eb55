//! Temporary
pub const PYTHON: &str = "shim.py";
pub const PYTHON_FLAGS: &[&str] = &["-I", "-B"];
pub const NODE: &str = "shim.cjs";
pub const NODE_FLAGS: &[&str] = &[];
pub const FILES: &[(&str, &str)] = &[(PYTHON, include_str!("python/shim.py"))];
