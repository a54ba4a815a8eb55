"""Sockets of kinds that lead into the kernel or to the hardware."""

import errno
import os
import socket
import struct

from prelude import NEWNET, NEWNS, absent, attack, control, gained, handler, refused

# Families that a function has a use for.
ORDINARY = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
MISSING = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}


def socket_of(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
        return gained("family %d, type %d, protocol %d" % (family, kind, protocol))
    except OSError as error:
        what = "family %d: %s" % (family, error.strerror)
        return absent(what) if error.errno in MISSING else refused(what)


@attack("raw-socket")
def _():
    return socket_of(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attack("raw-socket-ipv6")
def _():
    return socket_of(socket.AF_INET6, socket.SOCK_RAW, 58)


@attack("packet-socket")
def _():
    return socket_of(17, socket.SOCK_RAW, 0)


@attack("vsock")
def _():
    return socket_of(40, socket.SOCK_STREAM)


@attack("crypto-socket")
def _():
    return socket_of(38, socket.SOCK_SEQPACKET)


@attack("netlink-netfilter")
def _():
    return socket_of(16, socket.SOCK_RAW, 12)


@attack("netlink-audit")
def _():
    return socket_of(16, socket.SOCK_RAW, 9)


@attack("netlink-device-events")
def _():
    return socket_of(16, socket.SOCK_RAW, 15)


@attack("netlink-new-interface", apart=NEWNS | NEWNET)
def _():
    """Adds a bridge: a netlink socket for routes may open (to list interfaces), but changes nothing."""
    name = b"abuse0\0\0"
    attributes = struct.pack("HH", 4 + 7, 3) + name
    info = struct.pack("HH", 4 + 7, 1) + b"bridge\0\0"
    attributes += struct.pack("HH", 4 + len(info), 18) + info
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + attributes
    head = struct.pack("IHHII", 16 + len(body), 16, 0x1 | 0x4 | 0x400 | 0x200, 1, 0)
    try:
        with socket.socket(16, socket.SOCK_RAW, 0) as link:
            link.settimeout(3)
            link.send(head + body)
            answer = link.recv(4096)
    except OSError as error:
        return refused(error.strerror)
    code = struct.unpack_from("i", answer, 16)[0]
    if code == -errno.EOPNOTSUPP:
        return absent("no bridges in this kernel")
    return refused(errno.errorcode.get(-code, code)) if code else gained("an interface was made")


@attack("rare-socket-families")
def _():
    """Old protocols, each with its history of holes: amateur radio, X.25, AppleTalk, Bluetooth, CAN, TIPC, RDS, KCM, SMC, XDP."""
    for family in range(1, 47):
        if family in ORDINARY or family == 16:
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            verdict = socket_of(family, kind)
            if verdict["gained"]:
                return verdict
    return refused("none of them")


@attack("old-transport-protocols")
def _():
    """DCCP, SCTP, UDP-Lite and MPTCP over ordinary addresses."""
    last = refused("none")
    for kind, protocol in ((6, 33), (socket.SOCK_STREAM, 132), (socket.SOCK_SEQPACKET, 132), (socket.SOCK_DGRAM, 136), (socket.SOCK_STREAM, 262)):
        last = socket_of(socket.AF_INET, kind, protocol)
        if last["gained"]:
            return last
    return last


@attack("mark-packets", apart=NEWNS | NEWNET)
def _():
    """Firewall marks are for whoever administers the network."""
    try:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, 36, 7)  # SO_MARK, for which one must be admin of the network
        return gained("marked packets")
    except OSError as error:
        return refused(error.strerror)


if __name__ == "__main__":
    control()
