"""A victim that lays out its things, and an attacker beside it that looks for them: the same eyes for both."""

import os
import signal
import socket
import subprocess
import sys
import time

PORT = 45671
NAME = "\0faasd-abuse-victim"
KEPT = []


def plant(secret):
    for path in ("/tmp/victim-file", "/dev/shm/victim-memory", "/output/victim-output"):
        with open(path, "w") as file:
            file.write(secret)
    KEPT.append(socket.create_server(("127.0.0.1", PORT)))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(NAME)
    abstract.listen()
    KEPT.append(abstract)
    KEPT.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", secret], env={"VICTIM_SECRET": secret}))
    time.sleep(0.3)


def read(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)
    except OSError:
        return b""


def below(tops, secret):
    for top in tops:
        for folder, _, names in os.walk(top, followlinks=True):
            if any(secret.encode() in read(os.path.join(folder, name)) for name in names):
                return True
    return False


def of_processes(name, secret):
    return any(secret.encode() in read("/proc/%s/%s" % (pid, name)) for pid in os.listdir("/proc") if pid.isdigit())


def connects(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(2)
            link.connect(address)
        return True
    except OSError:
        return False


def signalled(secret):
    """Ends the victim's child by every number that it could have, if it can be seen to be the victim's."""
    for pid in range(3, 4096):
        if pid == os.getpid() or secret.encode() not in read("/proc/%d/cmdline" % pid):
            continue
        try:
            os.kill(pid, signal.SIGKILL)
            return True
        except OSError:
            pass
    return False


def found(peek, secret):
    if peek == "neighbour-files":
        return below(["/tmp", "/var/tmp"], secret)
    if peek == "neighbour-shared-memory":
        return below(["/dev/shm/", "/run/shm/"], secret)
    if peek == "neighbour-output":
        return below(["/output"], secret)
    if peek == "neighbour-code":
        return below(["/var/task", "/workspace/", "/opt", "/srv", "/home"], secret)
    if peek == "neighbour-environment":
        return of_processes("environ", secret)
    if peek == "neighbour-processes":
        return of_processes("cmdline", secret)
    if peek == "neighbour-loopback":
        return connects(socket.AF_INET, ("127.0.0.1", PORT))
    if peek == "neighbour-abstract-socket":
        return connects(socket.AF_UNIX, NAME)
    if peek == "neighbour-signals":
        return signalled(secret)
    raise ValueError(peek)


def handler(event, context):
    if event["be"] == "attacker":
        return {"found": found(event["peek"], event["secret"])}
    plant(event["secret"])
    print("planted", flush=True)
    seen = {peek: found(peek, event["secret"]) for peek in event["peeks"]}
    time.sleep(event["seconds"])
    return {"found": seen}
