"""What the kernel shows as files: settings that reach the whole machine, and what they tell of it."""

import os

from prelude import NEWUSER, any_of, attack, control, gained, handler, in_child, libc, opened, read, refused, written


@attack("core-pattern")
def _():
    return opened(["/proc/sys/kernel/core_pattern"], os.O_WRONLY)


@attack("kernel-settings")
def _():
    return opened(["/proc/sys/" + name for name in ("vm/overcommit_memory", "kernel/modprobe", "kernel/hostname", "net/ipv4/ip_forward",
                                                    "fs/protected_symlinks", "kernel/randomize_va_space")], os.O_WRONLY)


@attack("magic-sysrq")
def _():
    return opened(["/proc/sysrq-trigger"], os.O_WRONLY)


@attack("cgroup-release-agent")
def _():
    """CVE-2022-0492: a program of the attacker's, run by the host's kernel when a group becomes empty."""
    paths = []
    for folder, inner, _ in os.walk("/sys/fs/cgroup"):
        paths += [os.path.join(folder, name) for name in ("release_agent", "cgroup.procs")]
        del inner[8:]
        if len(paths) > 64:
            break
    return opened(paths or ["/sys/fs/cgroup/release_agent"], os.O_WRONLY)


@attack("own-cgroup-limits")
def _():
    names = ("memory.max", "memory.limit_in_bytes", "pids.max", "devices.allow", "cpu.max", "cgroup.freeze")
    paths = [os.path.join(folder, name) for folder, _, files in os.walk("/sys/fs/cgroup") for name in names if name in files]
    return opened(paths[:200] or ["/sys/fs/cgroup/memory.max"], os.O_WRONLY)


@attack("sysfs")
def _():
    try:
        names = os.listdir("/sys")
    except OSError as error:
        return refused(error.strerror)
    return gained(names) if names else refused("empty")


def make_a_disk():
    """Something harmless under a disk's name, since not every root may open a disk."""
    libc.mount(b"none", b"/dev", b"tmpfs", 0, None)
    os.mknod("/dev/vda", 0o020600, os.makedev(1, 3))


@attack("memory-and-disks", prepare=make_a_disk)
def _():
    return opened(["/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/sda", "/dev/nvme0n1", "/dev/vda"], os.O_RDONLY)


@attack("kernel-symbols")
def _():
    addresses = [line.split()[0] for line in read("/proc/kallsyms").splitlines()[:100]]
    return gained(addresses[0]) if any(int(a, 16) for a in addresses) else refused("%d lines, no address" % len(addresses))


@attack("kernel-details")
def _():
    """Files that container runtimes mask, since they tell of the whole machine."""
    masked = ("/proc/timer_list", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi/scsi", "/proc/acpi/wakeup",
              "/proc/iomem", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/pagetypeinfo")
    shown = [path for path in masked if read(path).strip()]
    return gained(shown) if shown else refused("none can be read")


def be_a_good_victim():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


@attack("out-of-memory-score", prepare=be_a_good_victim)
def _():
    """Lower than the daemon's, the kernel would kill the daemon first."""
    def lower():
        try:
            with open("/proc/self/oom_score_adj", "r+") as file:
                before = int(file.read())
                file.seek(0)
                file.write(str(max(before - 1, -1000)))
            return gained("it was %d, now %s" % (before, read("/proc/self/oom_score_adj")))
        except OSError as error:
            return refused(error.strerror)

    return in_child(lower)


@attack("id-maps", apart=NEWUSER)
def _():
    """A map is written once, and the sandbox's was."""
    return any_of(written("/proc/self/uid_map", "0 0 1"), written("/proc/self/gid_map", "0 0 1"))


@attack("devices")
def _():
    """Whatever /dev holds beyond the harmless five."""
    harmless = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm", "tty", "ptmx", "pts"}
    try:
        more = sorted(set(os.listdir("/dev")) - harmless)
    except OSError as error:
        return refused(error.strerror)
    return gained(more[:10]) if more else refused("only harmless ones")


if __name__ == "__main__":
    control()
