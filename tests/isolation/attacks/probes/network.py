"""Ways out by network: nothing but a loopback of one's own is there."""

import fcntl
import os
import socket
import struct

from prelude import LURES, NEWNET, NEWNS, any_of, attack, control, gained, handler, refused

PATIENCE = 2
METADATA = "169.254.169.254"
RESOLVER = "8.8.8.8"


def connected(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(PATIENCE)
            link.connect(address)
        return gained("connected to %s" % (address,))
    except OSError as error:
        return refused("%s: %s" % (address, error))


def give_loopback(address):
    """Up, and with this address too: the control's own network then has somebody there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for name, where in ((b"lo", "127.0.0.1"), (b"lo:1", address)):
            fcntl.ioctl(link, 0x8916, struct.pack("16sH2x4s8x", name, socket.AF_INET, socket.inet_aton(where)))
            fcntl.ioctl(link, 0x8914, struct.pack("16sH14x", name, 1))


def serve_metadata():
    give_loopback(METADATA)
    listener = socket.create_server((METADATA, 80))
    os.set_inheritable(listener.fileno(), True)
    KEPT.append(listener)


def serve_names():
    give_loopback(RESOLVER)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((RESOLVER, 53))
    KEPT.append(listener)


def serve_https():
    give_loopback(RESOLVER)
    KEPT.append(socket.create_server((RESOLVER, 443)))


KEPT = []


@attack("metadata-address", apart=NEWNS | NEWNET, prepare=serve_metadata)
def _():
    return connected(socket.AF_INET, (METADATA, 80))


@attack("name-server", apart=NEWNS | NEWNET, prepare=serve_names)
def _():
    question = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\7example\3com\0" + struct.pack(">HH", 1, 1)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(PATIENCE)
            return gained("%d bytes left" % link.sendto(question, (RESOLVER, 53)))
    except OSError as error:
        return refused(error)


@attack("internet", apart=NEWNS | NEWNET, prepare=serve_https)
def _():
    return connected(socket.AF_INET, (RESOLVER, 443))


@attack("host-loopback", apart=NEWNS)
def _():
    return any_of(*[connected(socket.AF_INET, ("127.0.0.1", port)) for port in (LURES["port"], LURES["daemon_port"])])


@attack("host-loopback-any-address", apart=NEWNS)
def _():
    return connected(socket.AF_INET, ("0.0.0.0", LURES["daemon_port"]))


@attack("host-loopback-mapped", apart=NEWNS)
def _():
    """IPv4 in IPv6 clothes."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as link:
            link.settimeout(PATIENCE)
            link.connect(("::ffff:127.0.0.1", LURES["daemon_port"]))
        return gained("connected")
    except OSError as error:
        return refused(error)


@attack("redis-port", apart=NEWNS)
def _():
    """A server that answers PING as Redis does stands at a port of its own, since 6379 may be taken."""
    for port in (6379, LURES["redis_port"]):
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
                link.sendall(b"PING\r\n")
                if link.recv(16).startswith(b"+PONG"):
                    return gained("Redis answers at %d" % port)
        except OSError:
            pass
    return refused("nobody answers")


@attack("host-interfaces", apart=NEWNS)
def _():
    names = [name for _, name in socket.if_nameindex()] if hasattr(socket, "if_nameindex") else []
    with open("/proc/net/dev") as table:
        names += [line.split(":")[0].strip() for line in table.read().splitlines()[2:]]
    return gained(names) if set(names) - {"lo"} else refused(names)


@attack("host-path-socket", apart=NEWNS)
def _():
    """The container engine's socket, and one like it that surely listens."""
    usual = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"]
    return any_of(*[connected(socket.AF_UNIX, path) for path in [*usual, LURES["socket"]]])


@attack("host-abstract-socket", apart=NEWNS)
def _():
    return connected(socket.AF_UNIX, "\0" + LURES["abstract"])


@attack("host-socket-table", apart=NEWNS)
def _():
    shown = ""
    for table in ("unix", "tcp", "tcp6"):
        with open("/proc/net/" + table) as file:
            shown += file.read()
    port = ":%04X " % LURES["daemon_port"]
    return gained("the host's sockets are listed") if LURES["socket"] in shown or port in shown else refused("own ones alone")


@attack("host-abstract-datagram", apart=NEWNS)
def _():
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"x", "\0" + LURES["abstract_datagram"])
        return gained("sent")
    except OSError as error:
        return refused(error)


if __name__ == "__main__":
    control()
