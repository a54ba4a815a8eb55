#!/usr/bin/env python3
"""Where the daemon's processor time of a call goes: samples of `perf script --no-inline` on standard input, by step.

`scripts/steps.py MICROSECONDS_PER_CALL < samples`; each sample counts for the first step below that one of its frames belongs to,
innermost frame first. `scripts/profile.sh` runs it all.
"""

import re
import sys
from collections import Counter

from flame import stacks

# Step, and what its frames are called. The order of the page is the order of a call.
STEPS = [
    ("store: the records' thread", r"^store-write$|embedded::writer"),
    ("accept and parse: HTTP in", r"poll_read_head|poll_read_from_io|Buffered.*parse|headers::check|activity.*AsyncRead|controller::body"),
    ("who calls: key, limits", r"controller::auth|controller::rate|controller::gate"),
    ("version look-up", r"controller::lookup"),
    ("checkout and checkin: the pool", r"worker::sandboxes|domain::pool|Checkout"),
    ("write to the sandbox, wake it", r"write_some|uds.*write_vectored|UnixStream.*write|wire::head|unix_stream_sendmsg"),
    ("read the answer, take the frame", r"try_read_buf|frames::|uds.*Read|unix_stream_recvmsg|socket::Socket|sys::receive"),
    ("what was printed", r"channel::Channel::drain|channel::Pipe"),
    ("usage: peak, time, tasks, /output", r"cgroup::meter|output_files|cgroup::group|files::Output"),
    ("record: filled, written as JSON, queued", r"Serialize|to_writer|invocation::Record|StoredRecord|inbox::|finish_behind|metrics"),
    ("answer: HTTP out", r"poll_flush|activity.*AsyncWrite|tcp_sendmsg|write_vectored|encode"),
    ("waiting and switching: epoll, scheduler", r"epoll|park|schedule|futex|driver::|Context::run$"),
]


def step_of(stack):
    command, *frames = stack
    for name, pattern in STEPS[:1]:
        if re.search(pattern, command):
            return name
    for frame in reversed(frames):
        for name, pattern in STEPS:
            if re.search(pattern, frame):
                return name
    return "the rest: glue, allocation, runtime"


def main():
    per_call = float(sys.argv[1])
    counts = Counter()
    for stack, n in stacks(sys.stdin).items():
        counts[step_of(stack)] += n
    total = sum(counts.values())
    for name in [name for name, _ in STEPS[1:]] + ["the rest: glue, allocation, runtime", STEPS[0][0]]:
        share = counts[name] / total
        print("| %s | %.1f | %.0f %% |" % (name, share * per_call, 100 * share))
    print("| all | %.1f | of %d samples |" % (per_call, total))


if __name__ == "__main__":
    main()
