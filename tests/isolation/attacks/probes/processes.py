"""The host's processes, what they share by name or number, and rights that programs could lend."""

import ctypes
import os
import socket
import subprocess
import time

from prelude import (
    LURES, NEWIPC, NEWNS, any_of, attack, below_proc, control, gained, handler, holds, in_child, libc, opened, reached, read,
    refused,
)

CODE = os.path.dirname(os.path.abspath(__file__))


def leave_one_open():
    os.open("/", os.O_RDONLY | os.O_DIRECTORY)


@attack("host-environment")
def _():
    """The daemon's environment holds its secrets, and the metrics token is among them here."""
    own = [name for name in os.environ if name.startswith(("FAASD_", "AWS_ACCESS", "AWS_SECRET", "AWS_SESSION_TOKEN", "CARGO"))]
    if own and os.getppid() == 1:
        return gained(own)
    return holds(below_proc("environ"), LURES["token"])


@attack("host-processes")
def _():
    return holds(below_proc("cmdline"), LURES["process"])


@attack("signal-host-process")
def _():
    try:
        os.kill(LURES["pid"], 0)
        return gained("pid %d can be signalled" % LURES["pid"])
    except OSError as error:
        return refused(error.strerror)


@attack("host-process-memory")
def _():
    """Of the daemon, where all keys are."""
    return opened(["/proc/%d/mem" % LURES["daemon_pid"], "/proc/%d/maps" % LURES["daemon_pid"]], os.O_RDONLY)


@attack("host-name", apart=NEWNS)
def _():
    names = {os.uname().nodename, socket.gethostname(), read("/proc/sys/kernel/hostname").decode().strip(), read("/etc/hostname").decode().strip()}
    return gained(names) if LURES["host_name"] in names else refused(names)


@attack("leaked-descriptors", prepare=leave_one_open)
def _():
    """Standard streams and the socket to the daemon; nothing that leads to a file."""
    leaks = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            continue
        own = target.startswith(("/proc/", "/var/task", CODE)) or target in ("/dev/null", "/dev/urandom", "/dev/random")
        if int(fd) > 2 and not own and not target.startswith(("socket:", "pipe:", "anon_inode:[event")):
            leaks.append(fd + " " + target)
    sockets = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd) and fd > "2"]
    return gained(leaks) if leaks else refused("%d descriptors, none leads anywhere" % len(sockets))


@attack("descriptors-of-init")
def _():
    """How the runtime ended is told through the first process's pipe: whoever may open it may forge it."""
    last = refused("no way in")
    parent = "/proc/%d/fd" % os.getppid()
    try:
        for fd in os.listdir(parent):
            path = os.path.join(parent, fd)
            verdict = opened([path], os.O_WRONLY | os.O_NONBLOCK)
            if verdict["gained"] and not os.readlink(path).startswith("/dev/null"):
                return verdict
            last = verdict
    except OSError as error:
        return refused("%s: %s" % (parent, error.strerror))
    return last if not last["gained"] else refused("only /dev/null")


@attack("setuid-programs", apart=NEWNS)
def _():
    """A set-uid program of root's own is run by a user that is not root."""
    def as_somebody():
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
        shown = subprocess.run(["su", "--help"], capture_output=True, timeout=10)
        child = subprocess.Popen(["su", "root", "-c", "true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            for _ in range(100):
                ids = [line for line in read("/proc/%d/status" % child.pid).decode().splitlines() if line.startswith("Uid:")]
                if ids and ids[0].split()[2] == "0":
                    return gained("su runs as root: " + ids[0])
                if child.poll() is not None:
                    break
                time.sleep(0.01)
            return refused("su ended with %s after %s" % (child.returncode, shown.returncode))
        finally:
            child.kill()
            child.communicate()

    return in_child(as_somebody)


@attack("privileges-through-memfd")
def _():
    """Programs may be run from memory; what runs is as narrow as what started it."""
    fd = os.memfd_create("abuse", 0)
    with open("/bin/cat", "rb") as program:
        os.write(fd, program.read())
    shown = subprocess.run(["/proc/self/fd/%d" % fd, "/proc/self/status"], pass_fds=[fd], capture_output=True, timeout=10)
    facts = dict(line.split(":", 1) for line in shown.stdout.decode().splitlines())
    narrow = int(facts["CapEff"], 16) == 0 and facts["Seccomp"].strip() == "2" and facts["NoNewPrivs"].strip() == "1"
    return refused("ran, and is as narrow") if narrow else gained({name: facts[name] for name in ("CapEff", "Seccomp", "NoNewPrivs")})


@attack("core-dump")
def _():
    import resource

    def raise_it():
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        if hard == 0 and os.getuid() != 0:
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
            except (OSError, ValueError) as error:
                return refused(error)
        return gained("up to %d bytes" % hard)

    return in_child(raise_it)


@attack("raise-own-limits")
def _():
    import resource

    def raise_them():
        allowed = []
        for name in ("RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_CORE", "RLIMIT_MSGQUEUE"):
            limit = getattr(resource, name, 12)
            soft, hard = resource.getrlimit(limit)
            if hard == resource.RLIM_INFINITY:
                allowed.append(name)
                continue
            try:
                resource.setrlimit(limit, (hard + 1, hard + 1))
                allowed.append(name)
            except (OSError, ValueError):
                pass
        return gained(allowed) if allowed else refused("none")

    return in_child(raise_them)


@attack("lock-much-memory")
def _():
    def lock():
        size = 64 << 20
        libc.mmap.restype = ctypes.c_void_p
        at = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, 0)
        if libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(size)) == 0:
            return gained("locked %d bytes" % size)
        return refused("errno %d" % ctypes.get_errno())

    return in_child(lock)


@attack("host-shared-memory", apart=NEWNS)
def _():
    text = read("/proc/sysvipc/shm").decode()
    return gained(LURES["shm_key"]) if str(LURES["shm_key"]) in text.split() else refused("%d lines" % len(text.splitlines()))


@attack("shared-memory-by-key", apart=NEWNS)
def _():
    return reached("shmget", LURES["shm_key"], 0, 0)


@attack("message-queues", apart=NEWNS | NEWIPC)
def _():
    return any_of(reached("mq_open", b"abuse", 0o102, 0o600, None), reached("msgget", 0, 0o1600), reached("semget", 0, 1, 0o1600))


if __name__ == "__main__":
    control()
