"""The host's files, seen or written: by their path, round about, or through what the sandbox is given."""

import json
import os
import sys

from prelude import LURES, any_of, attack, below_proc, control, gained, handler, holds, libc, opened, refused

CODE = os.path.dirname(os.path.abspath(__file__))


def leave_one_open():
    os.open("/", os.O_RDONLY | os.O_DIRECTORY)


@attack("host-file-by-path")
def _():
    return holds([LURES["file"]], LURES["secret"])


@attack("host-file-through-proc-root")
def _():
    path = LURES["file"]
    return holds(below_proc("root" + path, "cwd/../../.." + path, "cwd/../../../../.." + path), LURES["secret"])


@attack("host-file-above-the-root")
def _():
    return holds(["/.." * depth + LURES["file"] for depth in (1, 4, 32)], LURES["secret"])


@attack("host-file-through-open-descriptors", prepare=leave_one_open)
def _():
    """A directory left open leads out of any root."""
    found = []
    for fd in range(256):
        try:
            inside = os.open("../../../../.." + LURES["file"], os.O_RDONLY, dir_fd=fd)
        except (OSError, ValueError):
            continue
        found.append(fd)
        os.close(inside)
    return gained("through descriptor %d" % found[0]) if found else refused("no descriptor leads there")


@attack("admin-key-file")
def _():
    return opened([LURES["admin_key"], "/var/lib/faasd/admin.key"], os.O_RDONLY)


@attack("data-directory")
def _():
    try:
        return gained(os.listdir(LURES["data_dir"]))
    except OSError as error:
        return refused(error.strerror)


def bind_the_data_directory():
    libc.mount(LURES["data_dir"].encode(), b"/mnt", None, 0x1000, None)


@attack("host-paths-in-mount-table", prepare=bind_the_data_directory)
def _():
    return holds(below_proc("mountinfo", "mounts", "mountstats"), LURES["home"])


@attack("shadow-passwords")
def _():
    return opened(["/etc/shadow", "/etc/gshadow", "/etc/ssh/ssh_host_ed25519_key", "/etc/sudoers"], os.O_RDONLY)


@attack("home-directories")
def _():
    for place in ("/root", "/home", "/work", "/var/lib", "/var/log", "/srv", "/mnt", "/boot", "/run"):
        try:
            names = os.listdir(place)
        except OSError:
            continue
        # The interpreter is shown where it is.
        names = [name for name in names if not (sys.base_prefix + "/").startswith("%s/%s/" % (place, name))]
        if names:
            return gained("%s holds %s" % (place, names[:5]))
    return refused("there are none")


@attack("code-writable")
def _():
    main = os.path.join(CODE, "main.py" if os.path.exists(os.path.join(CODE, "main.py")) else "files.py")
    created = os.path.join(CODE, "planted.py")
    verdict = any_of(opened([main], os.O_WRONLY | os.O_APPEND), opened([created], os.O_WRONLY | os.O_CREAT))
    if os.path.exists(created):
        os.unlink(created)
    return verdict


@attack("interpreter-library-writable")
def _():
    """A module planted there would run in every later sandbox."""
    return opened([json.__file__, os.__file__, "/usr/bin/env"], os.O_WRONLY | os.O_APPEND)


@attack("daemon-executable-overwrite")
def _():
    """CVE-2019-5736: through /proc/PID/exe of whoever started the sandbox, or the copy that is shown inside."""
    paths = ["/proc/self/exe", "/proc/1/exe", "/proc/%d/exe" % os.getppid(), "/opt/faasd/faasd", "/opt/faasd/shim.py"]
    return any_of(*[opened([path], os.O_WRONLY | os.O_APPEND) for path in paths])


@attack("read-only-root-writable")
def _():
    created = "/abuse-was-here"
    verdict = opened([created], os.O_WRONLY | os.O_CREAT)
    if verdict["gained"]:
        os.unlink(created)
    return verdict


if __name__ == "__main__":
    control()
