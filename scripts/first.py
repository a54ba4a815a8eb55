#!/usr/bin/env python3
"""Where the time of a Python function's first call goes, in medians over many first calls of a real daemon.

`scripts/first.py FAASD [FIRST_CALLS]`, as root, with perf installed: functions that were never called are called once each, first in
sandboxes made for the call, then in pre-warmed ones; every system call of the daemon, the launcher and the zygote is recorded with its
time. To record one takes the kernel about a microsecond: the whole is also told as a client sees it without that.
ARCHITECTURE.md has the tables.
"""

import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# Of x86-64.
NAMES = {0: "read", 1: "write", 20: "writev", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 435: "clone3", 436: "close_range"}
CODE = "def handler(event, context):\n    return event\n"
PAUSE = 0.15
EVENT = re.compile(r"\s*\S+\s+(\d+)/\d+\s+([\d.]+):\s+raw_syscalls:sys_(enter|exit): NR (-?\d+) (.*)")


class Daemon:
    def __init__(self, executable, prewarmed):
        self.home = tempfile.TemporaryDirectory(prefix="faasd-first-")
        home = self.home.name
        settings = {"SANDBOX__CGROUP_PREFIX": "faasd-first-%d" % os.getpid(), "POOL__PREWARMED_PYTHON": str(prewarmed)}
        settings.update({"POOL__PREWARMED_NODEJS": "0", "POOL__PREWARMED_NATIVE": "0"})
        environment = dict(os.environ, **{"FAASD_" + name: value for name, value in settings.items()})
        command = [executable, "--listen", "127.0.0.1:0", "--data-dir", home + "/data"]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        files = [home + "/data/" + name for name in ("address", "admin.key")]
        while not all(os.path.exists(file) and os.path.getsize(file) for file in files):
            if self.process.poll() is not None:
                sys.exit("first: the daemon does not start")
            time.sleep(0.05)
        address, self.key = (open(file).read().strip() for file in files)
        self.connection = http.client.HTTPConnection(address)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(1)

    def children(self, pid):
        return [int(child) for child in open("/proc/%d/task/%d/children" % (pid, pid)).read().split()]

    def post(self, path, body):
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        begun = time.perf_counter()
        self.connection.request("POST", path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - begun
        if answer.status >= 300:
            sys.exit("first: %s answered %d: %s" % (path, answer.status, text))
        return json.loads(text), took * 1e3

    def first_calls(self, count, prefix):
        took = []
        for nth in range(count):
            name = "%s-%d" % (prefix, nth)
            self.post("/functions", {"name": name, "runtime": "python", "code": {"inline": CODE}})
            time.sleep(PAUSE)
            record, milliseconds = self.post("/run", {"functionId": name, "inputData": {"message": "hello"}})
            if record["status"] != "SUCCESS":
                sys.exit("first: a call failed: %s" % record)
            took.append(milliseconds)
        return took

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.home.cleanup()


def events(file):
    """(time in µs, pid, whether it returns, name, what it returned or its arguments)."""
    text = subprocess.run(["perf", "script", "-i", file, "-F", "comm,pid,tid,time,event,trace"], capture_output=True, text=True).stdout
    for line in text.splitlines():
        found = EVENT.match(line)
        if found and int(found[4]) in NAMES:
            yield float(found[2]) * 1e6, int(found[1]), found[3] == "exit", NAMES[int(found[4])], found[5].lstrip("= ")


class Call:
    """The events from a request's arrival to its answer, taken one after the other."""

    def __init__(self, begun):
        self.events, self.at, self.since, self.steps = [], 0, begun, {}

    def until(self, step, matches):
        """Ends `step` with the next event that matches; where there is none, this is no first call."""
        while self.at < len(self.events):
            event = self.events[self.at]
            self.at += 1
            if matches(event):
                self.steps[step] = event[0] - self.since
                self.since = event[0]
                return event
        raise LookupError(step)


def by(pid, name, returns=True):
    return lambda event: event[1] == pid and event[3] == name and event[2] == returns and not event[4].startswith("-")


def steps_of(call, daemon, launcher, zygote, made):
    sandbox = lambda name: lambda e: e[1] not in (daemon, launcher, zygote) and e[3] == name and e[2]
    written = lambda e: sandbox("write")(e) and e[4].isdigit() and int(e[4]) > 8
    if made:
        call.until("request, pool, groups: the launcher is asked", by(daemon, "sendmsg"))
        call.until("the launcher: from being asked to clone3", by(launcher, "clone3", False))
        call.until("clone3 into the namespaces", by(launcher, "clone3"))
        first = call.until("walls, beside the zygote's fork", sandbox("close_range"))[1]
        call.until("the last walls", lambda e: sandbox("close_range")(e) and e[1] != first)
        call.until("the forked interpreter is ready", written)
    call.until("the daemon: asks for the code to be mounted", by(daemon, "sendmsg"))
    call.until("the launcher mounts the code", by(launcher, "sendmsg"))
    call.until("the function is sent", by(daemon, "writev"))
    call.until("Python loads it", written)
    call.until("usage is read, the call sent", by(daemon, "writev"))
    call.until("the call", written)
    call.until("usage, record, answer", by(daemon, "writev"))


def medians(file, daemon, launcher, zygote, made):
    calls, call = [], None
    for event in events(file):
        if event[1] == daemon and event[3] == "recvfrom" and event[2] and event[4].isdigit():
            if call:
                calls.append(call)
            call = Call(event[0])
        elif call:
            call.events.append(event)
    rows = []
    for call in calls + [call]:
        try:
            steps_of(call, daemon, launcher, zygote, made)
            rows.append(call.steps)
        except LookupError:
            pass  # a deployment
    return rows


def main():
    executable, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    for made in (True, False):
        daemon = Daemon(executable, 0 if made else 2)
        try:
            launcher = daemon.children(daemon.process.pid)[0]
            zygote = daemon.children(launcher)[0]
            seen = statistics.median(daemon.first_calls(count, "seen"))
            file = daemon.home.name + "/perf.data"
            pids = ",".join(map(str, (daemon.process.pid, launcher, zygote)))
            calls = "raw_syscalls:sys_enter,raw_syscalls:sys_exit"
            perf = subprocess.Popen(["perf", "record", "-q", "-m", "2048", "-e", calls, "-p", pids, "-o", file], stderr=subprocess.DEVNULL)
            time.sleep(1)
            recorded = statistics.median(daemon.first_calls(count, "recorded"))
            perf.send_signal(signal.SIGINT)
            perf.wait()
            rows = medians(file, daemon.process.pid, launcher, zygote, made)
        finally:
            daemon.end()
        print("\n| %s | µs |\n|---|---|" % ("made for the call" if made else "pre-warmed"))
        for step in rows[0]:
            print("| %s | %.0f |" % (step, statistics.median(row[step] for row in rows)))
        whole = statistics.median(sum(row.values()) for row in rows)
        print("| all, of %d first calls | %.0f |" % (len(rows), whole))
        print("\nclient: %.2f ms, recorded %.2f" % (seen, recorded))


if __name__ == "__main__":
    main()
