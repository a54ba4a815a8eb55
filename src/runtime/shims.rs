//! The language shims, carried inside the executable, and how an interpreter is started on one.

pub const PYTHON: &str = "shim.py";
/// `-I`: nothing from the environment or the user's folder decides what the shim imports; `-B`: the code is read-only anyway.
pub const PYTHON_FLAGS: &[&str] = &["-I", "-B", "-X", "utf8"];

pub const NODE: &str = "shim.cjs";
pub const NODE_FLAGS: &[&str] = &[];

/// Every file that lies in `/opt/faasd`: name, contents.
pub const FILES: &[(&str, &str)] = &[
    (PYTHON, include_str!("python/shim.py")),
    ("rehearsal.py", include_str!("python/rehearsal.py")),
    (NODE, include_str!("nodejs/shim.cjs")),
    ("rehearsal.js", include_str!("nodejs/rehearsal.js")),
];
