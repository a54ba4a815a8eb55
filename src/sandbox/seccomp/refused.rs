//! The calls that are refused, as data: which of them end a sandbox, and under which names they are counted.

/// A call with the name it is counted under.
pub type Named = (i64, &'static str);

/// What the calls would reach, and the calls.
pub struct Forbidden(pub &'static str, pub &'static [Named]);

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

/// Refused calls that are counted under a name of their own; every other is `other`. Those of [`super::arguments`] are allowed with other arguments.
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
