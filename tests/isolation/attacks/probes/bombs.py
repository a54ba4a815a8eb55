"""Processes, processors and ends: ways of not behaving. Each says with `made` how far it came."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time

from waste import MIB, attack, until_refused


@attack("fork-bomb")
def _():
    end = time.monotonic() + 1
    made = 0
    while time.monotonic() < end:
        try:
            if os.fork() == 0:
                while time.monotonic() < end:
                    try:
                        os.fork()
                    except OSError:
                        time.sleep(0.01)
                os._exit(0)
            made += 1
        except OSError:
            time.sleep(0.01)
    return {"made": made}


@attack("thread-bomb")
def _():
    return {"made": until_refused(lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(), 5000)}


@attack("zombie-flood")
def _():
    def one(_):
        if os.fork() == 0:
            os._exit(0)

    return {"made": until_refused(one, 5000)}


@attack("spawn-loop")
def _():
    kept = []
    return {"made": until_refused(lambda _: kept.append(subprocess.Popen(["/bin/sleep", "60"], close_fds=False)), 5000)}


@attack("double-fork-daemon")
def _():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "771.5"])
        os._exit(0)
    os.wait()
    return {"made": 1}


@attack("process-that-ignores-everything")
def _():
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(60)
    return {"made": 1}


@attack("stopped-children")
def _():
    for _ in range(8):
        if os.fork() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
    return {"made": 8}


@attack("stop-itself")
def _():
    os.kill(os.getpid(), signal.SIGSTOP)


@attack("kill-everything")
def _():
    """Whoever sends it is spared: what dies is below it."""
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(60)
    os.kill(-1, signal.SIGKILL)
    return {"made": int(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL)}


def told_to_init(number, times):
    """Refused or not, the sandbox lives on."""
    try:
        for _ in range(times):
            os.kill(1, number)
    except PermissionError:
        pass
    time.sleep(0.2)
    return {"made": times}


@attack("kill-init")
def _():
    return told_to_init(signal.SIGKILL, 1)


@attack("stop-init")
def _():
    return told_to_init(signal.SIGSTOP, 1)


@attack("flood-init-with-signals")
def _():
    return told_to_init(signal.SIGCHLD, 50_000)


@attack("burn-all-processors")
def _():
    for _ in range(15):
        if os.fork() == 0:
            break
    while True:
        pass


@attack("regular-expression")
def _():
    return re.match(r"(a+)+$", "a" * 64 + "b")


@attack("sleep-for-ever")
def _():
    while True:
        time.sleep(60)


@attack("ignore-the-end")
def _():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


@attack("exit")
def _():
    os._exit(7)


@attack("abort")
def _():
    os.abort()


@attack("segmentation-fault")
def _():
    ctypes.string_at(0)


@attack("stack-overflow")
def _():
    sys.setrecursionlimit(1 << 30)

    def deeper(n):
        return deeper(n + 1) + 1

    return deeper(0)


@attack("result-too-large")
def _():
    return "x" * (7 * MIB)


@attack("result-too-deep")
def _():
    value = []
    for _ in range(200_000):
        value = [value]
    return value


@attack("result-of-no-json")
def _():
    return float("inf")


@attack("error-too-large")
def _():
    raise ValueError("x" * (16 * MIB))


@attack("error-that-can-not-be-told")
def _():
    class Nasty(Exception):
        def __str__(self):
            raise SystemExit("nasty")

    raise Nasty


@attack("close-every-descriptor")
def _():
    os.closerange(0, 4096)
    return {"made": 1}


@attack("write-to-every-descriptor")
def _():
    for fd in range(3, 1024):
        try:
            os.set_blocking(fd, False)
            os.write(fd, b"\xff" * 4096)
        except OSError:
            pass
    return {"made": 1}
