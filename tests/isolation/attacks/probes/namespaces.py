"""Mounts, roots and namespaces: the ways to be somewhere else."""

import os
import struct

from prelude import (
    NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWTIME, NEWUSER, NEWUTS, any_of, attack, call, control, gained, handler,
    in_child, reached, refused,
)

AT_FDCWD = -100
SIGCHLD = 17


def unshared(flag):
    """In a child, so that what it gains ends with it."""
    return in_child(lambda: reached("unshare", flag))


@attack("mount-tmpfs")
def _():
    return reached("mount", b"none", b"/tmp", b"tmpfs", 0, None)


@attack("mount-bind-root")
def _():
    return reached("mount", b"/", b"/tmp", None, 0x1000 | 0x4000, None)


@attack("mount-proc-again")
def _():
    return reached("mount", b"proc", b"/tmp", b"proc", 0, None)


@attack("remount-root-writable")
def _():
    return reached("mount", None, b"/", None, 0x20 | 0x1000, None)


@attack("mount-make-shared")
def _():
    return reached("mount", None, b"/", None, 0x4000 | (1 << 20), None)


@attack("fsopen")
def _():
    return reached("fsopen", b"tmpfs", 0)


@attack("open-tree-clone")
def _():
    return reached("open_tree", AT_FDCWD, b"/", 1)


@attack("move-mount")
def _():
    return reached("move_mount", AT_FDCWD, b"/proc", AT_FDCWD, b"/tmp", 0)


@attack("mount-setattr")
def _():
    attributes = struct.pack("QQQQ", 0, 1, 0, 0)
    return reached("mount_setattr", AT_FDCWD, b"/", 0, attributes, len(attributes))


@attack("umount-proc")
def _():
    return reached("umount2", b"/proc", 2)


@attack("pivot-root")
def _():
    return reached("pivot_root", b"/tmp", b"/tmp")


@attack("chroot")
def _():
    return in_child(lambda: reached("chroot", b"/tmp"))


@attack("unshare-user")
def _():
    return unshared(NEWUSER)


@attack("unshare-mount")
def _():
    return unshared(NEWNS)


@attack("unshare-net")
def _():
    return unshared(NEWNET)


@attack("unshare-pid")
def _():
    return unshared(NEWPID)


@attack("unshare-ipc")
def _():
    return unshared(NEWIPC)


@attack("unshare-uts")
def _():
    return unshared(NEWUTS)


@attack("unshare-cgroup")
def _():
    return unshared(NEWCGROUP)


@attack("unshare-time")
def _():
    return unshared(NEWTIME)


def cloned(name, *args):
    returned, error = call(name, *args)
    if returned == 0:
        os._exit(0)
    if returned > 0:
        os.waitpid(returned, 0)
        return gained("%s made process %d" % (name, returned))
    return refused("%s: errno %d" % (name, error))


@attack("clone-new-user")
def _():
    return cloned("clone", NEWUSER | SIGCHLD, 0, 0, 0, 0)


@attack("clone3-new-user")
def _():
    arguments = struct.pack("11Q", NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0)
    return cloned("clone3", arguments, len(arguments))


@attack("setns-by-proc")
def _():
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    try:
        return any_of(reached("setns", fd, 0), reached("setns", fd, NEWNS))
    finally:
        os.close(fd)


@attack("setns-by-pidfd")
def _():
    pidfd, error = call("pidfd_open", os.getppid(), 0)
    return refused("pidfd_open: errno %d" % error) if pidfd < 0 else reached("setns", pidfd, NEWNS | NEWNET)


if __name__ == "__main__":
    control()
