"""System calls that only somebody with rights of the host's should get an answer from."""

import ctypes
import os
import struct

from prelude import any_of, attack, call, control, gained, handler, in_child, opened, reached, refused

AT_FDCWD = -100


@attack("open-by-handle-at")
def _():
    root = os.open("/", os.O_RDONLY)
    # Eight bytes of handle for inode 2, the root of an ext4 file system.
    handle = struct.pack("IiII", 8, 1, 2, 0)
    try:
        return reached("open_by_handle_at", root, handle, os.O_RDONLY)
    finally:
        os.close(root)


@attack("ptrace-init")
def _():
    return reached("ptrace", 0x4206, os.getppid(), 0, 0)


@attack("ptrace-own-child")
def _():
    def traced():
        pid = os.fork()
        if pid == 0:
            while True:
                os.read(ready[0], 1)
        try:
            return reached("ptrace", 16, pid, 0, 0)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    ready = os.pipe()
    return in_child(traced)


def foreign_memory(name):
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(buffer), 16)
    return reached(name, os.getppid(), vector, 1, vector, 1, 0)


@attack("process-vm-readv")
def _():
    return foreign_memory("process_vm_readv")


@attack("process-vm-writev")
def _():
    # The vector is not readable: nothing is ever written.
    return reached("process_vm_writev", os.getppid(), 1, 1, 1, 1, 0)


@attack("memory-file-of-init")
def _():
    return opened(["/proc/%d/mem" % os.getppid()], os.O_RDWR)


@attack("pidfd-getfd")
def _():
    pidfd, error = call("pidfd_open", os.getppid(), 0)
    return refused("pidfd_open: errno %d" % error) if pidfd < 0 else reached("pidfd_getfd", pidfd, 0, 0)


@attack("kcmp")
def _():
    return reached("kcmp", os.getpid(), os.getpid(), 0, 0, 0)


@attack("keyctl-session")
def _():
    return reached("keyctl", 0, -3, 0)


@attack("add-key")
def _():
    return reached("add_key", b"user", b"abuse", b"x", 1, -2)


@attack("request-key")
def _():
    return reached("request_key", b"user", b"abuse", None, 0)


@attack("bpf-map")
def _():
    return reached("bpf", 0, struct.pack("18I", 2, 4, 4, 1, *[0] * 14), 72)


@attack("perf-event-open")
def _():
    return reached("perf_event_open", struct.pack("IIQ", 1, 112, 0) + bytes(96), 0, -1, -1, 0)


@attack("userfaultfd")
def _():
    return reached("userfaultfd", 0)


@attack("io-uring")
def _():
    return reached("io_uring_setup", 1, ctypes.create_string_buffer(120))


@attack("kexec-load")
def _():
    # More segments than the kernel takes: nobody loads anything.
    return reached("kexec_load", 0, 99999, None, 0)


@attack("kexec-file-load")
def _():
    return reached("kexec_file_load", -1, -1, 0, b"", 0)


@attack("init-module")
def _():
    return reached("init_module", None, 0, b"")


@attack("finit-module")
def _():
    return reached("finit_module", -1, b"", 0)


@attack("delete-module")
def _():
    return reached("delete_module", b"no_such_module_here", 0o4000)


@attack("kernel-log")
def _():
    return any_of(reached("syslog", 3, ctypes.create_string_buffer(64), 64), opened(["/dev/kmsg", "/proc/kmsg"], os.O_RDONLY))


@attack("set-host-name")
def _():
    return any_of(reached("sethostname", b"abused", 6), reached("setdomainname", b"abused", 6))


@attack("set-clock")
def _():
    # Of a clock that nobody can set, so that the control leaves the host's alone.
    return any_of(reached("clock_settime", 1, struct.pack("qq", 0, 0)), reached("settimeofday", struct.pack("qq", 0, 2_000_000), None))


@attack("adjust-clock")
def _():
    return reached("adjtimex", ctypes.create_string_buffer(256))


@attack("reboot")
def _():
    # Without the magic numbers.
    return reached("reboot", 0, 0, 0, None)


@attack("swap-on")
def _():
    return any_of(reached("swapon", b"/no/such/file", 0), reached("swapoff", b"/no/such/file"))


@attack("process-accounting")
def _():
    return reached("acct", b"/no/such/file")


@attack("quota")
def _():
    return reached("quotactl", 0x80000100, None, 0, None)


@attack("io-ports")
def _():
    return reached("iopl", 3)


@attack("local-descriptor-table")
def _():
    return reached("modify_ldt", 0, ctypes.create_string_buffer(64), 64)


@attack("fanotify")
def _():
    return reached("fanotify_init", 0, 0)


@attack("move-pages-of-others")
def _():
    return any_of(reached("move_pages", os.getppid(), 0, None, None, None, 0), reached("migrate_pages", os.getppid(), 0, None, None))


@attack("personality")
def _():
    return in_child(lambda: reached("personality", 0x0040000))


@attack("become-root")
def _():
    return in_child(lambda: any_of(reached("setuid", 0), reached("setgid", 0), reached("setgroups", 0, None)))


@attack("regain-capabilities")
def _():
    def all_of_them():
        header = struct.pack("Ii", 0x20080522, 0)
        call("capset", header, struct.pack("6I", *[0xFFFFFFFF] * 6))
        held = next(line for line in open("/proc/self/status") if line.startswith("CapEff"))
        return gained(held) if int(held.split()[1], 16) else refused(held)

    return in_child(all_of_them)


@attack("secure-bits")
def _():
    return in_child(lambda: reached("prctl", 28, 0, 0, 0, 0))


@attack("lift-the-filter")
def _():
    def allow_everything_then_mount():
        allow = struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
        program = ctypes.create_string_buffer(allow)
        call("prctl", 38, 1, 0, 0, 0)
        call("prctl", 22, 2, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)), 0, 0)
        return reached("mount", b"none", b"/tmp", b"tmpfs", 0, None)

    return in_child(allow_everything_then_mount)


@attack("make-device-node")
def _():
    try:
        return reached("mknodat", AT_FDCWD, b"/tmp/abuse-memory", 0o020666, os.makedev(1, 1))
    finally:
        if os.path.lexists("/tmp/abuse-memory"):
            os.unlink("/tmp/abuse-memory")


@attack("file-capabilities")
def _():
    path = "/tmp/abuse-capable-%d" % os.getpid()
    open(path, "w").close()
    try:
        return reached("setxattr", path.encode(), b"security.capability", struct.pack("IIIII", 0x02000001, 1, 0, 0, 0), 20, 0)
    finally:
        os.unlink(path)


@attack("terminal-injection")
def _():
    null = os.open("/dev/null", os.O_RDWR)
    try:
        return reached("ioctl", null, 0x5412, b"x")
    finally:
        os.close(null)


@attack("realtime-priority")
def _():
    return in_child(lambda: reached("sched_setscheduler", 0, 1, struct.pack("i", 1)))


@attack("better-niceness")
def _():
    return in_child(lambda: reached("setpriority", 0, 0, -10))


@attack("realtime-io")
def _():
    return in_child(lambda: reached("ioprio_set", 1, 0, 1 << 13))


if __name__ == "__main__":
    control()
