//! A launch pad: a copy of the runner, made while it waits for its function, that becomes the program when there is one.
//!
//! Starting a program from nothing is a clone, some hundred system calls and an exec; with the copy there already, only the exec is left for
//! the first caller to wait for.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, execve, pipe2};

/// Makes a copy of this process, which has one thread: the copy's pid, `None` in the copy, where SIGPIPE is as programs expect it.
pub type Fork = fn() -> io::Result<Option<i32>>;

pub(super) struct Pad {
    pid: Pid,
    /// What it is to become; nothing: that it is to end.
    orders: File,
    /// The number of the error for which it could not; closes at exec.
    failed: File,
}

impl Pad {
    pub fn make(fork: Fork) -> io::Result<Self> {
        let (orders_read, orders) = pipe2(OFlag::O_CLOEXEC)?;
        let (failed, failed_write) = pipe2(OFlag::O_CLOEXEC)?;
        match fork()? {
            Some(pid) => Ok(Self { pid: Pid::from_raw(pid), orders: orders.into(), failed: failed.into() }),
            None => {
                drop((orders, failed));
                wait(orders_read.into(), failed_write.into())
            }
        }
    }

    /// It becomes the program at `path`: its pid. The input is nothing, the outputs are ours.
    pub fn launch(mut self, path: &Path, directory: &Path, env: &BTreeMap<String, String>) -> io::Result<Pid> {
        let mut order = [path, directory].map(|path| path.as_os_str().as_bytes()).join(&0);
        for (name, value) in env {
            order.push(0);
            order.extend_from_slice(format!("{name}={value}").as_bytes());
        }
        let sent = self.orders.write_all(&order);
        drop(self.orders);
        let mut number = [0; 4];
        let failure = match (sent, self.failed.read(&mut number)?) {
            (Ok(()), 0) => return Ok(self.pid),
            (Ok(()), _) => io::Error::from_raw_os_error(i32::from_le_bytes(number)),
            (Err(error), _) => error,
        };
        let _ = waitpid(self.pid, None);
        Err(failure)
    }

    /// There will be no program, or not this way. Nothing is left of it afterwards.
    pub fn dismiss(self) {
        drop(self.orders);
        let _ = waitpid(self.pid, None);
    }
}

/// In the copy.
fn wait(mut orders: File, mut failed: File) -> ! {
    let mut order = Vec::new();
    if orders.read_to_end(&mut order).is_ok() && !order.is_empty() {
        let mut parts = order.split(|byte| *byte == 0);
        let (path, directory) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Err(error) = become_program(path, directory, parts);
        let _ = failed.write_all(&(error as i32).to_le_bytes());
    }
    #[allow(clippy::disallowed_methods, reason = "the copy of a process whose caller must not go on in it")]
    std::process::exit(1)
}

/// By execve(2) itself: what is no program is an error, where the library's other ways would have a shell read it.
fn become_program<'a>(
    path: &[u8],
    directory: &[u8],
    env: impl Iterator<Item = &'a [u8]>,
) -> nix::Result<std::convert::Infallible> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let env: Vec<CString> = env.map(text).collect::<Result<_, _>>()?;
    let path = text(path)?;
    chdir(OsStr::from_bytes(directory))?;
    SigSet::empty().thread_set_mask()?;
    execve(&path, &[&path], &env)
}
