//! The system calls a sandbox may make: a profile as data, the filters made of it, and the ear of the daemon for what they refuse.
//!
//! A call that is in no list fails with EPERM. One that no honest program makes ends the sandbox, and so does any call by another
//! architecture's interface (32-bit, x32). Both reach the daemon through a listener, which counts them by name; it reads the number and
//! nothing of the sandbox's memory, so nothing can be changed under its eyes. `clone3` fails with ENOSYS: its flags lie in memory that a
//! filter can't see, and libc then takes `clone`.

mod arguments;
mod listener;
mod profile;
mod program;
mod refused;

use libc::sock_filter;

use arguments::{CONDITIONAL, Conditional};
pub use listener::{Counters, listen};
use profile::{ALLOWED, ALLOWED_HERE, Allowed, FIRST_PROCESS, NEWEST};
pub use program::ARCHITECTURE;
use program::{Rules, Verdict};
use refused::{FORBIDDEN, FORBIDDEN_HERE, Forbidden, Named, REFUSED, REFUSED_HERE};

/// x86-64's second interface has the same architecture and this bit in its numbers (`__X32_SYSCALL_BIT`).
const X32: u32 = 1 << 30;

/// The filters, ready to be installed.
#[derive(Debug)]
pub struct Filters {
    /// For the runtime, where somebody listens.
    pub told: Vec<sock_filter>,
    /// For the runtime, where nobody can: the same verdicts, uncounted.
    pub untold: Vec<sock_filter>,
    /// For the first process.
    pub first: Vec<sock_filter>,
}

impl Filters {
    pub fn compile() -> Self {
        let refused = Verdict::Error(libc::EPERM);
        let mut first = Rules::new(Verdict::Kill, refused);
        FIRST_PROCESS.iter().for_each(|call| first.call(*call, Verdict::Allow));
        Self {
            told: runtime(Verdict::Tell, Verdict::Tell),
            untold: runtime(refused, Verdict::Kill),
            first: first.compile(),
        }
    }
}

fn runtime(refused: Verdict, forbidden: Verdict) -> Vec<sock_filter> {
    let mut rules = Rules::new(forbidden, refused);
    // -1 is what a program asks for that wants to see ENOSYS.
    rules.range(NEWEST as u32 + 1, u32::MAX, Verdict::Error(libc::ENOSYS));
    rules.range(X32, u32::MAX - 1, forbidden);
    let allowed = ALLOWED.iter().flat_map(|Allowed(_who, calls)| calls.iter()).chain(ALLOWED_HERE);
    allowed.for_each(|call| rules.call(*call, Verdict::Allow));
    every_forbidden().for_each(|(call, _)| rules.call(*call, forbidden));
    for Conditional { who: _who, call, rows } in CONDITIONAL {
        rules.call_if(*call, rows, refused);
    }
    rules.call(libc::SYS_clone3, Verdict::Error(libc::ENOSYS));
    rules.compile()
}

fn every_forbidden() -> impl Iterator<Item = &'static Named> {
    FORBIDDEN.iter().flat_map(|Forbidden(_what, calls)| calls.iter()).chain(FORBIDDEN_HERE)
}

/// What a call that the filter told of is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Answered with EPERM, and counted under this name.
    Refused(&'static str),
    /// The end of the sandbox, counted under this name.
    Forbidden(&'static str),
}

/// Judges a call by its number and architecture.
pub fn judge(number: i32, architecture: u32) -> Told {
    if architecture != ARCHITECTURE {
        return Told::Forbidden("foreign_architecture");
    }
    if number as u32 & X32 != 0 {
        return Told::Forbidden("x32");
    }
    let name_in = |(call, name): &Named| (*call == i64::from(number)).then_some(*name);
    match every_forbidden().find_map(name_in) {
        Some(name) => Told::Forbidden(name),
        None => Told::Refused(REFUSED.iter().chain(REFUSED_HERE).find_map(name_in).unwrap_or("other")),
    }
}

#[cfg(test)]
mod tests {
    use super::program::machine::run;
    use super::*;

    const TOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const ALLOWED_CODE: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    fn told(call: i64, arguments: [u64; 6]) -> u32 {
        run(&Filters::compile().told, ARCHITECTURE, call as u32, arguments)
    }

    #[test]
    fn no_call_is_in_two_lists() {
        let mut all: Vec<i64> = ALLOWED.iter().flat_map(|Allowed(_, calls)| calls.iter().copied()).collect();
        all.extend(ALLOWED_HERE);
        all.extend(every_forbidden().map(|(call, _)| call));
        all.push(libc::SYS_clone3);
        let conditional: Vec<i64> = CONDITIONAL.iter().map(|rule| rule.call).collect();
        let refused = REFUSED.iter().chain(REFUSED_HERE).map(|(call, _)| *call);
        all.extend(refused.filter(|call| !conditional.contains(call)));
        all.extend(conditional);
        let listed = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), listed);
        assert!(all.iter().all(|call| *call <= NEWEST));
    }

    #[test]
    fn every_group_says_why() {
        assert!(ALLOWED.iter().all(|Allowed(why, calls)| why.contains(':') && !calls.is_empty()));
        assert!(FORBIDDEN.iter().all(|Forbidden(why, calls)| !why.is_empty() && !calls.is_empty()));
        assert!(CONDITIONAL.iter().all(|rule| !rule.who.is_empty() && !rule.rows.is_empty()));
    }

    #[test]
    fn allowed_calls_pass_and_others_are_told_or_fail() {
        let filters = Filters::compile();
        for number in 0..600_u32 {
            let call = i64::from(number);
            let listed = ALLOWED.iter().any(|Allowed(_, calls)| calls.contains(&call)) || ALLOWED_HERE.contains(&call);
            let forbidden = every_forbidden().any(|(forbidden, _)| *forbidden == call);
            if CONDITIONAL.iter().any(|rule| rule.call == call) {
                continue;
            }
            let (told, untold) = match () {
                () if call == libc::SYS_clone3 || call > NEWEST => (ENOSYS, ENOSYS),
                () if listed => (ALLOWED_CODE, ALLOWED_CODE),
                () if forbidden => (TOLD, libc::SECCOMP_RET_KILL_PROCESS),
                () => (TOLD, EPERM),
            };
            assert_eq!(run(&filters.told, ARCHITECTURE, number, [0; 6]), told, "{number}");
            assert_eq!(run(&filters.untold, ARCHITECTURE, number, [0; 6]), untold, "{number}");
        }
    }

    #[test]
    fn other_interfaces_are_forbidden() {
        const I386: u32 = 0x4000_0003;
        let filters = Filters::compile();
        for number in [0, 1, 20, 39] {
            assert_eq!(run(&filters.untold, I386, number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(run(&filters.untold, ARCHITECTURE, X32 | number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(run(&filters.first, I386, number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(judge(number as i32, I386), Told::Forbidden("foreign_architecture"));
            assert_eq!(judge((X32 | number) as i32, ARCHITECTURE), Told::Forbidden("x32"));
        }
        assert_eq!(run(&filters.told, ARCHITECTURE, u32::MAX, [0; 6]), ENOSYS);
    }

    #[test]
    fn arguments_decide_about_sockets() {
        let socket = |family: i32, kind: i32, protocol: i32| {
            told(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0, 0])
        };
        let quiet = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        for (family, kind, protocol) in [
            (libc::AF_UNIX, libc::SOCK_STREAM, 0),
            (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
            (libc::AF_INET, libc::SOCK_STREAM, 0),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        ] {
            assert_eq!(socket(family, kind | quiet, protocol), ALLOWED_CODE, "{family} {kind} {protocol}");
        }
        for (family, kind, protocol) in [
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            (libc::AF_INET6, libc::SOCK_RAW, 255),
            (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            (libc::AF_PACKET, libc::SOCK_RAW, 3),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
            (libc::AF_UNIX, libc::SOCK_RAW, 0),
            (0, libc::SOCK_STREAM, 0),
        ] {
            assert_eq!(socket(family, kind | quiet, protocol), TOLD, "{family} {kind} {protocol}");
        }
    }

    #[test]
    fn arguments_decide_about_clone_ioctl_and_prctl() {
        let thread = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        assert_eq!(told(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOWED_CODE);
        assert_eq!(told(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), ALLOWED_CODE);
        for kind in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
            assert_eq!(told(libc::SYS_clone, [(kind | libc::SIGCHLD) as u64, 0, 0, 0, 0, 0]), TOLD);
        }
        assert_eq!(told(libc::SYS_ioctl, [0, libc::TCGETS, 0, 0, 0, 0]), ALLOWED_CODE);
        assert_eq!(told(libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]), TOLD);
        // The kernel reads the low half alone.
        assert_eq!(told(libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 32, 0, 0, 0, 0]), TOLD);
        assert_eq!(told(libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0, 0, 0, 0, 0]), ALLOWED_CODE);
        assert_eq!(told(libc::SYS_prctl, [libc::PR_SET_SECCOMP as u64, 2, 0, 0, 0, 0]), TOLD);
    }

    #[test]
    fn what_opens_walls_is_told_by_its_name() {
        for (call, name) in [
            (libc::SYS_mount, "mount"),
            (libc::SYS_setns, "setns"),
            (libc::SYS_ptrace, "ptrace"),
            (libc::SYS_bpf, "bpf"),
            (libc::SYS_kexec_load, "kexec_load"),
            (libc::SYS_open_by_handle_at, "open_by_handle_at"),
            (libc::SYS_process_vm_readv, "process_vm_readv"),
        ] {
            assert_eq!((told(call, [0; 6]), judge(call as i32, ARCHITECTURE)), (TOLD, Told::Forbidden(name)));
        }
        for (call, name) in [
            (libc::SYS_io_uring_setup, "io_uring_setup"),
            (libc::SYS_unshare, "unshare"),
            (libc::SYS_setuid, "setuid"),
            (libc::SYS_clone, "clone"),
            (libc::SYS_rt_tgsigqueueinfo, "other"),
        ] {
            assert_eq!(judge(call as i32, ARCHITECTURE), Told::Refused(name));
        }
    }
}
