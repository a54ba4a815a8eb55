//! The calls that are allowed with some arguments, as data. Arguments that are pointers can't be looked at: what they point at may change
//! between the look and the call.

/// One look at the low half of an argument; the kernel reads these arguments as 32-bit numbers too.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// From 0.
    pub argument: u8,
    pub mask: u32,
    pub value: u32,
    /// Whether the masked argument must be `value`, or must not.
    pub equal: bool,
}

const fn is(argument: u8, mask: u32, value: u32) -> Test {
    Test { argument, mask, value, equal: true }
}

const fn is_not(argument: u8, value: u32) -> Test {
    Test { argument, mask: u32::MAX, value, equal: false }
}

/// Calls that are allowed with some arguments: if every test of one of the rows passes.
pub struct Conditional {
    pub who: &'static str,
    pub call: i64,
    pub rows: &'static [&'static [Test]],
}

/// `CLONE_NEW*` of every kind.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `SOCK_NONBLOCK` and `SOCK_CLOEXEC` share the argument with the type (`SOCK_TYPE_MASK` of <linux/net.h>).
const TYPE: u32 = 0xf;
/// Either family of the Internet: 2 and 10 differ in this bit alone.
const INET_OR_INET6: Test = is(0, !(libc::AF_INET ^ libc::AF_INET6) as u32, libc::AF_INET as u32);
const STREAM: Test = is(1, TYPE, libc::SOCK_STREAM as u32);
const DATAGRAM: Test = is(1, TYPE, libc::SOCK_DGRAM as u32);
/// <linux/tty.h>: pastes into the terminal.
const TIOCLINUX: u32 = 0x541c;

/// Bits of a mode that tell what kind of file it is; none means a regular one.
const FILE_TYPE: u32 = libc::S_IFMT;

const fn protocol(number: i32) -> Test {
    is(2, u32::MAX, number as u32)
}

pub const CONDITIONAL: &[Conditional] = &[
    Conditional {
        who: "threads and processes of every runtime, in the namespaces there are",
        call: libc::SYS_clone,
        rows: &[&[is(0, NEW_NAMESPACES, 0)]],
    },
    Conditional {
        who: "sockets of every runtime: local ones, TCP and UDP. Netlink's routing part lists the interfaces: getifaddrs of C, node and Python, net.Interfaces of Go",
        call: libc::SYS_socket,
        rows: &[
            &[
                is(0, u32::MAX, libc::AF_UNIX as u32),
                Test { argument: 1, mask: TYPE, value: libc::SOCK_RAW as u32, equal: false },
            ],
            &[INET_OR_INET6, STREAM, protocol(0)],
            &[INET_OR_INET6, STREAM, protocol(libc::IPPROTO_TCP)],
            &[INET_OR_INET6, DATAGRAM, protocol(0)],
            &[INET_OR_INET6, DATAGRAM, protocol(libc::IPPROTO_UDP)],
            &[is(0, u32::MAX, libc::AF_NETLINK as u32), protocol(libc::NETLINK_ROUTE)],
        ],
    },
    Conditional {
        who: "wake-up channels of asyncio and node, child_process of node",
        call: libc::SYS_socketpair,
        rows: &[&[is(0, u32::MAX, libc::AF_UNIX as u32)]],
    },
    Conditional {
        who: "isatty and non-blocking modes of every runtime; feeding a terminal's input is what reaches out of a sandbox",
        call: libc::SYS_ioctl,
        rows: &[&[is_not(1, libc::TIOCSTI as u32), is_not(1, TIOCLINUX)]],
    },
    Conditional {
        who: "mkfifo of shells and Python; devices are refused",
        call: libc::SYS_mknodat,
        rows: &[&[is(2, FILE_TYPE, libc::S_IFIFO)], &[is(2, FILE_TYPE, libc::S_IFREG)], &[is(2, FILE_TYPE, 0)]],
    },
    Conditional {
        who: "names of threads, parent-death signals; a filter of one's own could hide refused calls from the count",
        call: libc::SYS_prctl,
        rows: &[&[is_not(0, libc::PR_SET_SECCOMP as u32)]],
    },
];
