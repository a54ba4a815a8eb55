//! Interpreters that are kept to be forked: one booted process for each, of which a sandbox's runtime is a copy that costs a fork.
//!
//! A zygote has its own mount namespace with the same read-only root as sandboxes see, so that what it has open bears the same names there
//! as in them. It runs the shim, preloaded with [`LIBRARY`], and no user code ever; it serves the launcher's orders over a socket
//! (`sandbox::sys::order`) and dies with it.
//!
//! ```text
//!          boot                 READY                    its end, or failures in a row
//! resting ──────▶ booting ─────────────▶ serving ──────────────────────────────────────┐
//!    ▲               └──────── its end, or too long ───────────────────────────────────┤
//!    └───────────────────────── after a pause, longer each time ───────────────────────┘
//! ```
//!
//! Orders may be given while it boots: they wait in its socket, as long as the interpreter's own start would take. Whatever fails on the way through
//! a zygote is done again by executing the interpreter, so that no sandbox depends on it.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{chdir, execve, pipe2, pivot_root};

use super::child::c_strings;
use super::protocol::{Reply, Start};
use super::template::{Step, StepError};
use crate::sandbox::seccomp::Filters;
use crate::sandbox::sys::order::{Order, PROGRAMS_BYTES_MAX, READY, Terms};
use crate::sandbox::sys::walls::{Descriptors, LetGo, Rights};
use crate::sandbox::sys::{self, Cloned, seccomp, walls};

/// What a zygote preloads; empty where it can't be built for this processor.
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zygote.so"));
/// Where it lies inside, below `/opt/faasd`.
pub const LIBRARY_NAME: &str = "zygote.so";

/// Longest that an interpreter may take to boot.
const BOOT_MAX: Duration = Duration::from_secs(5);
/// Longest that one which serves may take for a sandbox, which it makes in a few milliseconds.
pub const ORDER_MAX: Duration = Duration::from_secs(3);
/// From the end of one zygote to the next; doubles as long as none serves.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Sandboxes in a row that a zygote may fail to make.
const FAILURES_MAX: u32 = 3;
/// How much of a dead zygote's last words is passed on.
const WORDS_BYTES_MAX: u64 = 2048;

/// A living process.
struct Living {
    pidfd: OwnedFd,
    socket: OwnedFd,
    /// What it prints, which is nothing but why it can't go on.
    words: OwnedFd,
    since: Instant,
    serves: bool,
}

impl Drop for Living {
    fn drop(&mut self) {
        let _ = sys::signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// One interpreter, and the process that is kept of it.
pub struct Zygote {
    /// What sandboxes are started with that can be forked from it.
    arguments: Vec<String>,
    environment: Vec<String>,
    living: Option<Living>,
    next: Instant,
    pause: Duration,
    failures: u32,
}

impl Zygote {
    /// `None` where there are none on this processor.
    pub fn new(arguments: Vec<String>, environment: Vec<String>) -> Option<Self> {
        let new = Self { arguments, environment, living: None, next: Instant::now(), pause: PAUSE, failures: 0 };
        (!LIBRARY.is_empty()).then_some(new)
    }

    /// Readable when it has something to say.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.living.as_ref().map(|living| living.socket.as_fd())
    }

    /// Boots it if there is none and the pause is over; ends it if it takes too long. What is to be told of it.
    pub fn look_after(&mut self, root: &Path, filters: &Filters, rights: Rights) -> Option<Reply> {
        let now = Instant::now();
        match &self.living {
            Some(living) if !living.serves && now > living.since + BOOT_MAX => Some(self.end("does not become ready")),
            Some(_) => None,
            None if now < self.next => None,
            None => match boot(root, &self.arguments, &self.environment, &terms(filters, rights)) {
                Ok(living) => {
                    self.living = Some(living);
                    None
                }
                Err(error) => Some(self.end(&error.to_string())),
            },
        }
    }

    /// In which time it wants to be looked after again.
    pub fn patience(&self) -> Duration {
        match &self.living {
            Some(living) if living.serves => ORDER_MAX,
            Some(living) => (living.since + BOOT_MAX).saturating_duration_since(Instant::now()),
            None => self.next.saturating_duration_since(Instant::now()),
        }
    }

    /// A sandbox that it was told to make has been waiting for longer than [`ORDER_MAX`].
    pub fn hangs(&mut self) -> Option<Reply> {
        self.living.as_ref().is_some_and(|living| living.serves).then(|| self.end("does not answer"))
    }

    /// Reads what it has to say. What is to be told of it.
    pub fn hear(&mut self) -> Option<Reply> {
        let living = self.living.as_mut()?;
        let mut word = [0; 16];
        match sys::receive(&living.socket, &mut word) {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => None,
            Ok((length, _)) if &word[..length] == READY => {
                living.serves = true;
                Some(Reply::Zygote { program: self.program(), lives: true, cause: String::new() })
            }
            // Preloading was refused, say, and it is an interpreter like any other, which speaks as such.
            Ok((1.., _)) => Some(self.end("is none: the interpreter did not load the library")),
            // With an error where it left something unread.
            Ok((0, _)) | Err(_) => Some(self.end("ended")),
        }
    }

    /// Whether sandboxes that are started so can be forked from it, now.
    pub fn offers(&self, start: &Start) -> bool {
        self.living.is_some() && self.arguments == start.arguments && self.environment == start.environment
    }

    /// Has it make a runtime.
    pub fn order(&self, order: Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let living = self.living.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        sys::send(&living.socket, &order.to_bytes(), fds).map_err(io::Error::from)
    }

    /// It made one.
    pub fn succeeded(&mut self) {
        (self.failures, self.pause) = (0, PAUSE);
    }

    /// It could not make one.
    pub fn failed(&mut self, cause: &str) -> Option<Reply> {
        self.failures += 1;
        (self.failures >= FAILURES_MAX && self.living.is_some()).then(|| self.end(cause))
    }

    fn program(&self) -> String {
        self.arguments.first().cloned().unwrap_or_default()
    }

    fn end(&mut self, cause: &str) -> Reply {
        let words = self.living.take().map(last_words).unwrap_or_default();
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.failures = 0;
        let cause = if words.is_empty() { cause.to_owned() } else { format!("{cause}: {words}") };
        Reply::Zygote { program: self.program(), lives: false, cause }
    }
}

fn last_words(living: Living) -> String {
    let Ok(words) = living.words.try_clone() else { return String::new() };
    let mut said = Vec::new();
    // Never blocks; an error is the end of what there is.
    let _ = std::fs::File::from(words).take(WORDS_BYTES_MAX).read_to_end(&mut said);
    String::from_utf8_lossy(&said).trim_end().to_owned()
}

/// What it is told first.
fn terms(filters: &Filters, rights: Rights) -> Vec<u8> {
    let (told, untold) = (seccomp::bytes(&filters.told), seccomp::bytes(&filters.untold));
    let Rights { files, scopes } = rights;
    let terms = Terms { files, scopes, told_bytes: told.len() as u64, untold_bytes: untold.len() as u64 };
    [&terms.to_bytes(), told, untold].concat()
}

fn boot(root: &Path, arguments: &[String], environment: &[String], terms: &[u8]) -> Result<Living, StepError> {
    if terms.len() > PROGRAMS_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge)).step("tell a zygote its filter");
    }
    let arguments = c_strings(arguments).step("read arguments")?;
    let mut environment = environment.to_vec();
    environment.push(format!("LD_PRELOAD=/opt/faasd/{LIBRARY_NAME}"));
    let environment = c_strings(&environment).step("read environment")?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .step("make a zygote's socket")?;
    nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a zygote's socket")?;
    let (words, printed) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).step("make a zygote's pipe")?;
    sys::send(&ours, terms, &[]).step("tell a zygote its filter")?;
    match sys::clone3(libc::CLONE_NEWNS as u64, None).step("clone a zygote")? {
        Cloned::Child => {
            let Err(error) = become_zygote(root, &arguments, &environment, &theirs, &printed);
            let _ = nix::unistd::write(&printed, error.to_string().as_bytes());
            sys::exit(1)
        }
        Cloned::Parent { pidfd, .. } => Ok(Living { pidfd, socket: ours, words, since: Instant::now(), serves: false }),
    }
}

fn become_zygote(
    root: &Path,
    arguments: &[CString],
    environment: &[CString],
    socket: &OwnedFd,
    printed: &OwnedFd,
) -> Result<std::convert::Infallible, StepError> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask for the parent-death signal")?;
    let none = None::<&str>;
    // What is let go of below must not go from the launcher's mounts too.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("part from the launcher's mounts")?;
    mount(Some(root), root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).step("copy the root")?;
    chdir(root).step("enter the root")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the old root")?;
    chdir("/").step("enter the new root")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step("unblock signals")?;
    let (socket, printed) = (socket.as_raw_fd(), printed.as_raw_fd());
    walls::place(Descriptors { socket, stdout: printed, stderr: printed }, LetGo::AtExec)?;
    execve(&arguments[0], arguments, environment).step(format!("start {}", arguments[0].to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::sys::order::TERMS_BYTES;

    #[test]
    fn the_filters_fit_into_a_zygote_s_terms() {
        let filters = Filters::compile();
        let bytes = terms(&filters, Rights { files: 1, scopes: 2 });
        assert!(bytes.len() <= PROGRAMS_BYTES_MAX);
        let terms = Terms::from_bytes(&bytes[..TERMS_BYTES]).unwrap();
        assert_eq!((terms.files, terms.scopes), (1, 2));
        let told = terms.told_bytes as usize;
        assert_eq!(&bytes[TERMS_BYTES..TERMS_BYTES + told], seccomp::bytes(&filters.told));
        assert_eq!(bytes.len(), TERMS_BYTES + told + terms.untold_bytes as usize);
    }

    #[test]
    fn pauses_grow_until_a_sandbox_was_made() {
        let mut zygote = Zygote::new(vec!["python3".to_owned()], Vec::new()).unwrap();
        let pauses = std::iter::repeat_with(|| {
            zygote.end("ended");
            zygote.next.duration_since(Instant::now())
        });
        let pauses: Vec<Duration> = pauses.take(12).collect();
        assert!(
            pauses[0] <= PAUSE && pauses[1] > PAUSE && pauses[11] <= PAUSE_MAX && pauses[11] > PAUSE_MAX / 2,
            "{pauses:?}"
        );
        zygote.succeeded();
        zygote.end("ended");
        assert!(zygote.next <= Instant::now() + PAUSE);
    }
}
