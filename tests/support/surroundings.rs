//! Where a test's daemon is started, if not on the machine as it is.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a shell may take to be in its namespace.
const ENTER_LIMIT: Duration = Duration::from_secs(10);

/// What is different there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surroundings {
    #[default]
    Host,
    /// The host's own files, but the root is no mount namespace's.
    Chroot,
    /// A user namespace with the host's ids, below which another can't be made.
    NoUserNamespaces,
    /// Somebody listens at a filter of system calls above the daemon, as some container runtimes do: there can be no second listener.
    Listened,
}

/// Installs a filter that allows everything, with a listener that stays open, and becomes the program.
const LISTENED: &str = "import ctypes, os, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    class Instruction(ctypes.Structure): _fields_ = [('code', ctypes.c_ushort), ('jt', ctypes.c_ubyte), ('jf', ctypes.c_ubyte), ('k', ctypes.c_uint)]\n\
    class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.POINTER(Instruction))]\n\
    allow = Instruction(6, 0, 0, 0x7fff0000)\n\
    fd = libc.syscall(317, 1, 8, ctypes.byref(Program(1, ctypes.pointer(allow))))\n\
    assert fd >= 0, os.strerror(ctypes.get_errno())\n\
    os.set_inheritable(fd, True)\n\
    os.execv(sys.argv[1], sys.argv[1:])\n";

impl Surroundings {
    /// A command that becomes `program` there; its pid stays. `scratch` is an empty directory.
    pub fn command(self, program: impl AsRef<OsStr>, scratch: &Path) -> Command {
        let (kind, script) = match self {
            Self::Host => return Command::new(program),
            Self::Listened => {
                let mut command = Command::new("python3");
                command.args(["-c", LISTENED]).arg(program);
                return command;
            }
            Self::Chroot => ("--mount", r#"root=$1; shift; mount --rbind / "$root" && exec chroot "$root" "$@""#),
            // The second shell has the capabilities of a root that is one: the first began before the ids were mapped.
            Self::NoUserNamespaces => (
                "--user",
                r#"shift; read -r _; exec sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"' sh "$@""#,
            ),
        };
        let mut command = Command::new("unshare");
        command.args([kind, "sh", "-c", script, "sh"]).arg(scratch).arg(program);
        command
    }

    /// What the command needs on its standard input.
    pub fn stdin(self) -> Stdio {
        if self == Self::NoUserNamespaces { Stdio::piped() } else { Stdio::null() }
    }

    /// Lets the command go on.
    pub fn let_in(self, child: &mut Child) {
        if self != Self::NoUserNamespaces {
            return;
        }
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).expect("a user namespace");
        let (pid, since) = (child.id().to_string(), Instant::now());
        while namespace(&pid) == namespace("self") {
            assert!(since.elapsed() < ENTER_LIMIT, "no user namespace after {ENTER_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{map}"), "0 0 4294967295").expect("ids can be mapped");
        }
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"\n").expect("the shell reads");
    }
}
