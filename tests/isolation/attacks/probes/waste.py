"""What the wasters share: their table, and how often something works before the system says no."""

import ctypes
import time

libc = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20
ATTACKS = {}


def attack(name):
    return lambda how: ATTACKS.setdefault(name, how)


def until_refused(step, most, seconds=2.0):
    """How often `step` works before the system says no, `most` times at the most."""
    end = time.monotonic() + seconds
    for made in range(most):
        try:
            step(made)
        except (OSError, RuntimeError, MemoryError, ValueError):
            return made
        if time.monotonic() > end:
            return made + 1
    return most


def handler(event, context):
    print("begin", flush=True)
    return ATTACKS[event["attack"]]()
