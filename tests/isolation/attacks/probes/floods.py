"""Memory, files, output and small things of the kernel's, without end. Each says with `made` how far it came."""

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sys
import threading
import time

from waste import ATTACKS, MIB, attack, libc, until_refused


@attack("memory-of-its-own")
def _():
    kept = []
    while True:
        kept.append(bytearray(MIB))


@attack("memory-shared")
def _():
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 16 * MIB))
        for at in range(0, 16 * MIB, 4096):
            kept[-1][at] = 1


@attack("memory-in-a-memfd")
def _():
    fd = os.memfd_create("bomb")
    return {"made": until_refused(lambda _: os.write(fd, bytes(MIB)), 4096, 20)}


@attack("memory-in-many-processes")
def _():
    for _ in range(16):
        if os.fork() == 0:
            kept = bytearray(32 * MIB)
            kept[::4096] = b"x" * len(kept[::4096])
            time.sleep(60)
    time.sleep(2)
    return {"made": 16}


@attack("memory-in-tmp")
def _():
    with open("/tmp/bomb", "wb", 0) as file:
        return {"made": until_refused(lambda _: file.write(bytes(MIB)), 4096, 20)}


@attack("memory-in-pipes")
def _():
    kept = []

    def one(_):
        kept.append(os.pipe())
        os.set_blocking(kept[-1][1], False)
        try:
            fcntl.fcntl(kept[-1][1], 1031, MIB)
        except OSError:
            pass
        while True:
            try:
                os.write(kept[-1][1], bytes(65536))
            except BlockingIOError:
                return

    return {"made": until_refused(one, 5000)}


@attack("memory-in-sockets")
def _():
    kept = []

    def one(_):
        pair = socket.socketpair()
        kept.append(pair)
        pair[0].setblocking(False)
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        while True:
            try:
                pair[0].send(bytes(65536))
            except BlockingIOError:
                return

    return {"made": until_refused(one, 5000)}


@attack("many-mappings")
def _():
    kept = []
    return {"made": until_refused(lambda n: kept.append(mmap.mmap(-1, 4096, prot=1 + n % 2 * 2)), 100_000)}


@attack("sparse-file-of-a-terabyte")
def _():
    with open("/tmp/sparse", "wb") as file:
        file.truncate(1 << 40)
    return {"made": 1}


@attack("inode-flood")
def _():
    return {"made": until_refused(lambda n: os.close(os.open("/tmp/%d" % n, os.O_CREAT | os.O_WRONLY)), 200_000, 4)}


@attack("names-that-are-not-there")
def _():
    """Each leaves an entry in the kernel's cache of names."""
    for n in range(100_000):
        os.path.exists("/tmp/%d-%s" % (n, "x" * 200))
    return {"made": 100_000}


@attack("deep-directories")
def _():
    os.chdir("/tmp")

    def one(_):
        os.mkdir("d")
        os.chdir("d")

    made = until_refused(one, 20_000)
    os.chdir("/")
    return {"made": made}


@attack("deep-output-directories")
def _():
    os.chdir("/output")

    def one(_):
        os.mkdir("d")
        os.chdir("d")

    made = until_refused(one, 3000)
    os.chdir("/")
    return {"made": made}


@attack("descriptor-flood")
def _():
    kept = []
    return {"made": until_refused(lambda _: kept.append(os.open("/dev/null", os.O_RDONLY)), 100_000)}


@attack("socket-flood")
def _():
    kept = []

    def one(_):
        kept.append(socket.create_server(("127.0.0.1", 0), backlog=4096))

    return {"made": until_refused(one, 100_000)}


@attack("connection-flood")
def _():
    server = socket.create_server(("127.0.0.1", 0), backlog=65535)
    kept = []
    return {"made": until_refused(lambda _: kept.append(socket.create_connection(server.getsockname(), 1)), 100_000)}


@attack("epoll-flood")
def _():
    import select

    kept = []

    def one(_):
        kept.append(select.epoll())
        if len(kept) > 1:
            try:
                kept[-1].register(kept[-2].fileno())
            except OSError:
                pass

    return {"made": until_refused(one, 100_000)}


@attack("watch-flood")
def _():
    fd = libc.inotify_init1(0)
    os.makedirs("/tmp/watched", exist_ok=True)

    def one(n):
        path = "/tmp/watched/%d" % n
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        if libc.inotify_add_watch(fd, path.encode(), 0xFFF) < 0:
            raise OSError(ctypes.get_errno())

    return {"made": until_refused(one, 200_000)}


@attack("timer-flood")
def _():
    made = ctypes.c_void_p()

    def one(_):
        if libc.timer_create(1, None, ctypes.byref(made)) != 0:
            raise OSError(ctypes.get_errno())

    return {"made": until_refused(one, 200_000)}


@attack("queued-signal-flood")
def _():
    number = signal.SIGRTMIN + 3
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])

    def one(_):
        if libc.sigqueue(os.getpid(), number, ctypes.c_void_p(1)) != 0:
            raise OSError(ctypes.get_errno())

    made = until_refused(one, 500_000)
    # Ignored, they are thrown away.
    signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    return {"made": made}


@attack("stdout-flood")
def _():
    while True:
        sys.stdout.write("x" * 99 + "\n")


@attack("stderr-flood")
def _():
    while True:
        sys.stderr.write("x" * 99 + "\n")


@attack("flood-of-both")
def _():
    threading.Thread(target=ATTACKS["stderr-flood"], daemon=True).start()
    ATTACKS["stdout-flood"]()


@attack("endless-line")
def _():
    while True:
        os.write(1, b"x" * 65536)


@attack("broken-text")
def _():
    for _ in range(60):
        os.write(1, bytes(range(256)) * 64)
    return {"made": 60}
