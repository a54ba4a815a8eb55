//! What daemon and launcher say to each other: one JSON message a packet, descriptors beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest message, either way.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// The native runner by its arguments: not started anew, for the launcher is the same program and its copy goes on as one.
pub const RUNNER: [&str; 2] = ["/opt/faasd/faasd", "sandbox-runner"];

/// Which root a sandbox gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// Interpreters and libraries.
    Run,
    /// Compilers and headers too.
    Build,
}

/// Everything that stays the same for all sandboxes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// An empty directory of the daemon's; the launcher mounts its own file system there, which nobody else sees.
    pub run_dir: PathBuf,
    /// This executable, shown to sandboxes as `/opt/faasd/faasd`.
    pub executable: PathBuf,
    /// Host directories that sandboxes see read-only at the same path, beside the usual system ones.
    pub shown: Vec<PathBuf>,
    /// Name and contents of files below `/opt/faasd`.
    pub files: Vec<(String, String)>,
    /// Parents of the sandboxes' groups, to be swept when the daemon is gone.
    pub cgroup_parents: Vec<PathBuf>,
    /// What `/tmp` and `/output` hold until the daemon sizes them for a version: nobody's code has run before that.
    pub scratch: Scratch,
    /// Whether sandboxes get a user namespace; without, they run under their host ids.
    pub user_namespace: bool,
    /// Interpreters to be kept for forking; there are none where there is no user namespace.
    pub zygotes: Vec<Interpreter>,
}

/// What sandboxes are started with that are forked from the same zygote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interpreter {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
}

/// A sandbox to be made. Descriptors, in order: socket, stdout, stderr, status, then the v2 group if `into_v2`, then v1 `tasks` files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    pub slot: u32,
    pub root: Root,
    /// Host id that root inside maps to; the next one is the user's.
    pub uid: u32,
    pub into_v2: bool,
    /// Program and arguments; the program is an absolute path inside.
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub open_files_max: u64,
    /// Processes and threads of its user id.
    pub tasks_max: u64,
}

/// What `/tmp` and `/output` hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Setup(Setup),
    Start(Start),
    /// Show a host directory at `/var/task` of the sandbox in this slot; and if `scratch`, give the file system of the descriptor that
    /// comes along, the sandbox's `/output`, this size.
    Mount {
        slot: u32,
        code: PathBuf,
        scratch: Option<Scratch>,
    },
    Release {
        slot: u32,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Ready,
    /// With the first process's pidfd, and where there is one the listener at its filter.
    Started {
        slot: u32,
        pid: i32,
        /// From a zygote.
        forked: bool,
    },
    /// One serves from now on, or has ended, and why.
    Zygote {
        program: String,
        lives: bool,
        cause: String,
    },
    Mounted {
        slot: u32,
    },
    /// `slot` is absent when the set-up failed.
    Failed {
        slot: Option<u32>,
        step: String,
        cause: String,
    },
}
