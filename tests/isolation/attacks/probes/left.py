"""What is left in /output for the daemon to collect, which runs as root outside: links to its files, things that are no files, names."""

import os
import socket
import threading
import time

ATTACKS = {}


def attack(name):
    return lambda how: ATTACKS.setdefault(name, how)


def handler(event, context):
    with open("/output/kept.txt", "w") as file:
        file.write("kept")
    try:
        ATTACKS[event["attack"]](event["lure"])
        return "done"
    except OSError as error:
        return "refused: %s" % error


@attack("output-link-to-host-file")
def _(lure):
    os.symlink(lure, "/output/link")


@attack("output-relative-link")
def _(lure):
    os.makedirs("/output/a/b")
    os.symlink("../" * 12 + lure[1:], "/output/a/b/link")


@attack("output-link-through-proc")
def _(lure):
    os.symlink("/proc/1/root" + lure, "/output/link")
    os.symlink("/proc/self/environ", "/output/environ")
    os.symlink("/proc/self/cwd/data/admin.key", "/output/key")


@attack("output-linked-directory")
def _(lure):
    os.symlink(os.path.dirname(lure), "/output/directory")


@attack("output-hard-link")
def _(lure):
    for path in (lure, "/etc/passwd", "/usr/bin/env"):
        try:
            os.link(path, "/output/hard")
        except OSError:
            pass


@attack("output-fifo")
def _(lure):
    os.mkfifo("/output/fifo")


@attack("output-socket")
def _(lure):
    socket.socket(socket.AF_UNIX).bind("/output/socket")


@attack("output-device")
def _(lure):
    os.mknod("/output/device", 0o020666, os.makedev(1, 5))


@attack("output-swap-race")
def _(lure):
    """A file that is a link every other moment, a directory that is one, while the daemon collects."""
    def swap():
        end = time.monotonic() + 2
        while time.monotonic() < end:
            plain("/output/.file")
            os.rename("/output/.file", "/output/race")
            os.symlink(lure, "/output/.link")
            os.rename("/output/.link", "/output/race")
            folder("/output/folder")

    def plain(path):
        with open(path, "w") as file:
            file.write("x")

    def folder(path):
        try:
            os.rename(path, "/output/.away%d" % time.monotonic_ns())
        except OSError:
            pass
        os.symlink(os.path.dirname(lure), path)
        os.unlink(path)
        os.mkdir(path)
        plain(path + "/lure")

    for _ in range(2):
        threading.Thread(target=quietly, args=(swap,), daemon=True).start()
    time.sleep(0.2)


def quietly(work):
    while True:
        try:
            work()
            return
        except OSError:
            pass


@attack("output-names")
def _(lure):
    """Names that are harmless here, and paths or headers to somebody else."""
    for name in ("..\\..\\evil", "new\nline", "cr\r\nset-cookie: a=b", "%2e%2e%2fevil", "a;b", "\"quoted\"", "\u202egnp.exe", "-rf", "~root"):
        with open("/output/" + name, "w") as file:
            file.write("named")
    with open(b"/output/\xff\xfe", "w") as file:
        file.write("named")


@attack("output-long-names")
def _(lure):
    folder = "/output"
    for _ in range(12):
        folder += "/" + "n" * 200
        os.mkdir(folder)
    with open(folder + "/" + "f" * 200, "w") as file:
        file.write("deep")


@attack("output-many-files")
def _(lure):
    for n in range(5000):
        with open("/output/%d" % n, "w") as file:
            file.write("x")


@attack("output-of-a-terabyte")
def _(lure):
    with open("/output/sparse", "wb") as file:
        file.truncate(1 << 40)


@attack("output-growing-file")
def _(lure):
    """It has one size when it is looked at and another when it is read."""
    def grow():
        with open("/output/growing", "wb", 0) as file:
            while True:
                file.write(bytes(65536))

    threading.Thread(target=quietly, args=(grow,), daemon=True).start()
    time.sleep(0.05)


@attack("output-unreadable")
def _(lure):
    os.mkdir("/output/closed")
    with open("/output/closed/file", "w") as file:
        file.write("x")
    os.chmod("/output/closed/file", 0)
    os.chmod("/output/closed", 0)
