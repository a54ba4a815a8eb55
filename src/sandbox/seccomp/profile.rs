//! The profile as data: which system calls a sandbox may make, who needs them, and which no honest program makes.
//!
//! Nothing here is code. What is in no list is refused with EPERM; a number that was unknown when this was written, with ENOSYS, so that
//! newer C libraries fall back as they do on an older kernel.

/// Who needs the calls, and for what.
pub struct Allowed(pub &'static str, pub &'static [i64]);

/// A call with the name it is counted under.
pub type Named = (i64, &'static str);

/// What the calls would reach, and the calls.
pub struct Forbidden(pub &'static str, pub &'static [Named]);

pub const ALLOWED: &[Allowed] = &[
    Allowed(
        "files: every runtime opens, reads, writes and lists them; fchmodat2 is what newer C libraries make of chmod",
        &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_close,
            libc::SYS_close_range,
            libc::SYS_lseek,
            libc::SYS_fstat,
            libc::SYS_newfstatat,
            libc::SYS_statx,
            libc::SYS_statfs,
            libc::SYS_fstatfs,
            libc::SYS_getdents64,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_readlinkat,
            libc::SYS_getcwd,
            libc::SYS_chdir,
            libc::SYS_fchdir,
            libc::SYS_umask,
            libc::SYS_fcntl,
            libc::SYS_flock,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync_file_range,
            libc::SYS_ftruncate,
            libc::SYS_truncate,
            libc::SYS_fallocate,
            libc::SYS_fadvise64,
            libc::SYS_readahead,
            libc::SYS_copy_file_range,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_tee,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            FCHMODAT2,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_utimensat,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_pipe2,
            libc::SYS_getxattr,
            libc::SYS_lgetxattr,
            libc::SYS_fgetxattr,
            libc::SYS_listxattr,
            libc::SYS_llistxattr,
            libc::SYS_flistxattr,
        ],
    ),
    Allowed(
        "waiting: event loops of node (libuv), Python (asyncio, selectors) and Go (netpoll)",
        &[
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd2,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_timerfd_gettime,
            libc::SYS_signalfd4,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_rm_watch,
        ],
    ),
    Allowed(
        "memory: allocators of all, the JIT compiler of node, the garbage collectors of node and Go, shared memory of Python's multiprocessing",
        &[
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_brk,
            libc::SYS_msync,
            libc::SYS_mincore,
            libc::SYS_mlock,
            libc::SYS_munlock,
            libc::SYS_membarrier,
            libc::SYS_memfd_create,
            libc::SYS_pkey_alloc,
            libc::SYS_pkey_free,
            libc::SYS_pkey_mprotect,
        ],
    ),
    Allowed(
        "processes and threads: Python's subprocess and threading, node's child_process and worker_threads, Go's and C++'s threads",
        &[
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_gettid,
            libc::SYS_getpgid,
            libc::SYS_setpgid,
            libc::SYS_getsid,
            libc::SYS_setsid,
            libc::SYS_set_tid_address,
            libc::SYS_set_robust_list,
            libc::SYS_get_robust_list,
            libc::SYS_rseq,
            libc::SYS_futex,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_getparam,
            libc::SYS_sched_getscheduler,
            libc::SYS_sched_get_priority_max,
            libc::SYS_sched_get_priority_min,
            libc::SYS_getpriority,
            libc::SYS_setpriority,
            libc::SYS_prlimit64,
            libc::SYS_getrlimit,
            libc::SYS_getrusage,
            libc::SYS_times,
            libc::SYS_getcpu,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_restart_syscall,
        ],
    ),
    Allowed(
        "signals: Python's signal, Go's preemption, crash handlers of node",
        &[
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigpending,
            libc::SYS_rt_sigsuspend,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_sigaltstack,
        ],
    ),
    Allowed(
        "time: timers of every event loop, time.sleep, setitimer of profilers",
        &[
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_clock_nanosleep,
            libc::SYS_nanosleep,
            libc::SYS_gettimeofday,
            libc::SYS_getitimer,
            libc::SYS_setitimer,
            libc::SYS_timer_create,
            libc::SYS_timer_settime,
            libc::SYS_timer_gettime,
            libc::SYS_timer_delete,
            libc::SYS_timer_getoverrun,
        ],
    ),
    Allowed(
        "who am I: getpass and os.getuid of Python, os.userInfo of node, os/user of Go; identities are fixed, asking is harmless",
        &[
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getresuid,
            libc::SYS_getresgid,
            libc::SYS_getgroups,
            libc::SYS_uname,
            libc::SYS_sysinfo,
            libc::SYS_getrandom,
            libc::SYS_capget,
        ],
    ),
    Allowed(
        "sockets: the Runtime API on the sandbox's own loopback, socket pairs of asyncio and node; socket and socketpair are below, with their arguments",
        &[
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_connect,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_sendmmsg,
            libc::SYS_recvmmsg,
            libc::SYS_shutdown,
        ],
    ),
];

/// Older spellings that only x86-64 has: programs linked with older C libraries, and Go, which calls the kernel itself.
#[cfg(target_arch = "x86_64")]
pub const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_creat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_inotify_init,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
pub const ALLOWED_HERE: &[i64] = &[];

/// The version of <asm/unistd.h> that this was written against ends with mseal (Linux 6.10); what came later is unknown.
pub const NEWEST: i64 = 462;
/// Missing from the libc crate: Linux 6.6.
const FCHMODAT2: i64 = 452;

/// Calls that no honest program makes: whoever does is ended with its whole sandbox.
///
/// What honest libraries try and do without is not here: io_uring (libuv of node), keyctl (the default credential cache of Kerberos),
/// unshare and chroot (headless browsers, to see whether they can have a sandbox of their own).
pub const FORBIDDEN: &[Forbidden] = &[
    Forbidden(
        "other processes' memory, registers and descriptors, by the debugger's ways",
        &[
            (libc::SYS_ptrace, "ptrace"),
            (libc::SYS_process_vm_readv, "process_vm_readv"),
            (libc::SYS_process_vm_writev, "process_vm_writev"),
            (libc::SYS_pidfd_getfd, "pidfd_getfd"),
            (libc::SYS_kcmp, "kcmp"),
            (libc::SYS_perf_event_open, "perf_event_open"),
        ],
    ),
    Forbidden(
        "code that runs in the kernel, and faults handled in its stead",
        &[(libc::SYS_bpf, "bpf"), (libc::SYS_userfaultfd, "userfaultfd")],
    ),
    Forbidden(
        "the table of mounts, by the old interface and the new",
        &[
            (libc::SYS_mount, "mount"),
            (libc::SYS_umount2, "umount2"),
            (libc::SYS_pivot_root, "pivot_root"),
            (libc::SYS_open_tree, "open_tree"),
            (libc::SYS_move_mount, "move_mount"),
            (libc::SYS_fsopen, "fsopen"),
            (libc::SYS_fsconfig, "fsconfig"),
            (libc::SYS_fsmount, "fsmount"),
            (libc::SYS_fspick, "fspick"),
            (libc::SYS_mount_setattr, "mount_setattr"),
        ],
    ),
    Forbidden("namespaces of others", &[(libc::SYS_setns, "setns")]),
    Forbidden(
        "files by handle, past every path and every mount",
        &[(libc::SYS_open_by_handle_at, "open_by_handle_at")],
    ),
    Forbidden(
        "the kernel itself: another one, its modules, its swap, its accounts, its power",
        &[
            (libc::SYS_kexec_load, "kexec_load"),
            (libc::SYS_kexec_file_load, "kexec_file_load"),
            (libc::SYS_init_module, "init_module"),
            (libc::SYS_finit_module, "finit_module"),
            (libc::SYS_delete_module, "delete_module"),
            (libc::SYS_reboot, "reboot"),
            (libc::SYS_swapon, "swapon"),
            (libc::SYS_swapoff, "swapoff"),
            (libc::SYS_acct, "acct"),
            (libc::SYS_quotactl, "quotactl"),
            (libc::SYS_quotactl_fd, "quotactl_fd"),
        ],
    ),
];

/// Those that only x86-64 has: the processor's ports and tables.
#[cfg(target_arch = "x86_64")]
pub const FORBIDDEN_HERE: &[Named] =
    &[(libc::SYS_iopl, "iopl"), (libc::SYS_ioperm, "ioperm"), (libc::SYS_modify_ldt, "modify_ldt")];
#[cfg(not(target_arch = "x86_64"))]
pub const FORBIDDEN_HERE: &[Named] = &[];

/// Refused calls that are counted under a name of their own; every other is `other`. Those of [`CONDITIONAL`] are allowed with other arguments.
pub const REFUSED: &[Named] = &[
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_setuid, "setuid"),
    (libc::SYS_setgid, "setgid"),
    (libc::SYS_setreuid, "setreuid"),
    (libc::SYS_setregid, "setregid"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setresgid, "setresgid"),
    (libc::SYS_setgroups, "setgroups"),
    (libc::SYS_setfsuid, "setfsuid"),
    (libc::SYS_setfsgid, "setfsgid"),
    (libc::SYS_capset, "capset"),
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_io_uring_register, "io_uring_register"),
    (libc::SYS_keyctl, "keyctl"),
    (libc::SYS_add_key, "add_key"),
    (libc::SYS_request_key, "request_key"),
    (libc::SYS_seccomp, "seccomp"),
    (libc::SYS_personality, "personality"),
    (libc::SYS_syslog, "syslog"),
    (libc::SYS_sethostname, "sethostname"),
    (libc::SYS_setdomainname, "setdomainname"),
    (libc::SYS_settimeofday, "settimeofday"),
    (libc::SYS_clock_settime, "clock_settime"),
    (libc::SYS_clock_adjtime, "clock_adjtime"),
    (libc::SYS_adjtimex, "adjtimex"),
    (libc::SYS_vhangup, "vhangup"),
    (libc::SYS_name_to_handle_at, "name_to_handle_at"),
    (libc::SYS_fanotify_init, "fanotify_init"),
    (libc::SYS_fanotify_mark, "fanotify_mark"),
    (libc::SYS_mbind, "mbind"),
    (libc::SYS_set_mempolicy, "set_mempolicy"),
    (libc::SYS_get_mempolicy, "get_mempolicy"),
    (libc::SYS_migrate_pages, "migrate_pages"),
    (libc::SYS_move_pages, "move_pages"),
    (libc::SYS_mlock2, "mlock2"),
    (libc::SYS_mlockall, "mlockall"),
    (libc::SYS_munlockall, "munlockall"),
    (libc::SYS_sched_setscheduler, "sched_setscheduler"),
    (libc::SYS_sched_setparam, "sched_setparam"),
    (libc::SYS_sched_setattr, "sched_setattr"),
    (libc::SYS_sched_getattr, "sched_getattr"),
    (libc::SYS_ioprio_set, "ioprio_set"),
    (libc::SYS_ioprio_get, "ioprio_get"),
    (libc::SYS_shmget, "shmget"),
    (libc::SYS_shmat, "shmat"),
    (libc::SYS_shmctl, "shmctl"),
    (libc::SYS_shmdt, "shmdt"),
    (libc::SYS_semget, "semget"),
    (libc::SYS_semop, "semop"),
    (libc::SYS_semctl, "semctl"),
    (libc::SYS_semtimedop, "semtimedop"),
    (libc::SYS_msgget, "msgget"),
    (libc::SYS_msgsnd, "msgsnd"),
    (libc::SYS_msgrcv, "msgrcv"),
    (libc::SYS_msgctl, "msgctl"),
    (libc::SYS_mq_open, "mq_open"),
    (libc::SYS_mq_unlink, "mq_unlink"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_process_mrelease, "process_mrelease"),
    (libc::SYS_landlock_create_ruleset, "landlock_create_ruleset"),
    (libc::SYS_landlock_add_rule, "landlock_add_rule"),
    (libc::SYS_landlock_restrict_self, "landlock_restrict_self"),
    (libc::SYS_memfd_secret, "memfd_secret"),
    (libc::SYS_setxattr, "setxattr"),
    (libc::SYS_lsetxattr, "lsetxattr"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_removexattr, "removexattr"),
    (libc::SYS_sync, "sync"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_vmsplice, "vmsplice"),
    (libc::SYS_io_setup, "io_setup"),
    (libc::SYS_io_submit, "io_submit"),
    (libc::SYS_remap_file_pages, "remap_file_pages"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_prctl, "prctl"),
];
#[cfg(target_arch = "x86_64")]
pub const REFUSED_HERE: &[Named] =
    &[(libc::SYS_mknod, "mknod"), (libc::SYS_uselib, "uselib"), (libc::SYS_sysfs, "sysfs"), (libc::SYS_ustat, "ustat")];
#[cfg(not(target_arch = "x86_64"))]
pub const REFUSED_HERE: &[Named] = &[];

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

/// All that the first process of a sandbox does: wait, reap, pass SIGTERM on, tell how the runtime ended.
pub const FIRST_PROCESS: &[i64] = &[
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_wait4,
    libc::SYS_kill,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_exit_group,
];
