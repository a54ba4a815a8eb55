"""What the probes share. In a sandbox this is the module that answers a call; started by root on the host, with nothing around it, it is
the control: the same probes, which succeed there. A probe that gains nothing in a sandbox and nothing as root shows nothing.

A probe returns `gained(what)` when the attacker got what it wanted, and `refused(why)` when not.
"""

import ctypes
import errno
import json
import os
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET, NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x00000080

# What the kernel says to somebody who may not ask.
REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS}
CONTROL_SECONDS = 20

ATTACKS = {}
# From the test: numbers of system calls by name, and where the lures are that it laid out on the host.
CALLS, LURES = {}, {}


def attack(name, apart=NEWNS | NEWUTS, prepare=None):
    """Keeps a probe under its id. As control it runs in namespaces of its own of the kinds `apart`, after `prepare`."""

    def keep(probe):
        assert name not in ATTACKS, name
        ATTACKS[name] = (probe, apart, prepare)
        return probe

    return keep


def gained(detail):
    return {"gained": True, "detail": str(detail)[:500]}


def refused(detail):
    return {"gained": False, "detail": str(detail)[:500]}


def absent(detail):
    """This kernel was built without it, so root can't either."""
    return {"gained": False, "absent": True, "detail": str(detail)[:500]}


def call(name, *args):
    """(what it returned, errno) of a system call, with bytes and buffers passed as pointers."""
    ctypes.set_errno(0)
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    returned = libc.syscall(ctypes.c_long(CALLS[name]), *plain)
    return returned, ctypes.get_errno()


def reached(name, *args):
    """Gained unless the call is refused as such: an error about the arguments says that the kernel went on to look at them."""
    returned, error = call(name, *args)
    if returned >= 0:
        return gained("%s returned %d" % (name, returned))
    code = errno.errorcode.get(error, error)
    if error == errno.ENOSYS:
        return absent("%s: %s" % (name, code))
    return refused("%s: %s" % (name, code)) if error in REFUSALS else gained("%s was looked at: %s" % (name, code))


def any_of(*verdicts):
    """The first that gained, or the last refusal."""
    return next((verdict for verdict in verdicts if verdict["gained"]), verdicts[-1])


def opened(paths, flags):
    """Gained when one of `paths` opens, or would but for being a program that runs."""
    last = absent("no path")
    for path in paths:
        try:
            os.close(os.open(path, flags | os.O_CLOEXEC))
            return gained("opened " + path)
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                return gained("only busy: " + path)
            missing = error.errno == errno.ENOENT and "absent" in last
            last = (absent if missing else refused)("%s: %s" % (path, error.strerror))
    return last


def read(path, count=1 << 20):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, count)
        finally:
            os.close(fd)
    except OSError:
        return b""


def holds(paths, needle):
    """Gained when one of the files has `needle` in it."""
    for path in paths:
        if needle.encode() in read(path):
            return gained("%s shows it" % path)
    return refused("none of %d files shows it" % len(paths))


def below_proc(*names):
    pids = [name for name in os.listdir("/proc") if name.isdigit()] + ["self", "thread-self"]
    return ["/proc/%s/%s" % (pid, name) for pid in pids for name in names]


def written(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
        return gained("wrote " + path)
    except OSError as error:
        return refused("%s: %s" % (path, error.strerror))


def in_child(work):
    """The verdict of `work` in a process of its own, since what it does to its process can't be undone."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = refused("nothing")
        try:
            signal.alarm(CONTROL_SECONDS)
            verdict = work()
        except BaseException as error:
            verdict = refused("%s: %s" % (type(error).__name__, error))
        finally:
            os.write(writable, json.dumps(verdict).encode())
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return refused("killed by signal %d" % os.WTERMSIG(status))
    return json.loads(said) if said else refused("the child said nothing")


def handler(event, context):
    CALLS.update(event["calls"])
    LURES.update(event["lures"])
    probe, _, _ = ATTACKS[event["attack"]]
    return probe()


def control():
    """Every probe by root on the host: one JSON object on stdout, verdicts by id."""
    given = json.load(sys.stdin)
    CALLS.update(given["calls"])
    LURES.update(given["lures"])
    verdicts = {}
    for name, (probe, apart, prepare) in ATTACKS.items():

        def apart_from_the_host():
            if libc.unshare(apart) != 0:
                return refused("unshare failed: errno %d" % ctypes.get_errno())
            if apart & NEWNS:
                libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
            if prepare:
                prepare()
            # A new pid namespace begins with the next child.
            return in_child(probe) if apart & NEWPID else probe()

        verdicts[name] = in_child(apart_from_the_host)
    print(json.dumps(verdicts))
