"""A sandbox that speaks the daemon's own protocol, and lies. The numbers are taken from the shim beside it."""

import array
import json
import os
import socket
import stat
import sys
import threading
import time

shim = sys.modules["__main__"]


def daemon():
    """The socket to it, wherever the shim has put it."""
    for fd in range(3, 1024):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                return fd
        except OSError:
            continue
    raise OSError("no socket")


def frame(call, value, kind=None, version=None, body_bytes=None):
    meta, body = json.dumps({"id": call, "handlerUs": 1}).encode(), json.dumps(value).encode()
    head = bytes((shim.VERSION if version is None else version, shim.RESULT if kind is None else kind))
    length = len(body) if body_bytes is None else body_bytes
    return head + len(meta).to_bytes(2, "little") + length.to_bytes(4, "little") + meta + body


def wait_for_the_end():
    """Says nothing more, and goes: a sandbox that stays silent would be idle in the daemon's eyes, to the liar's own next call's harm."""
    time.sleep(4 if EVENT["attack"] == "answer-that-stalls" else 0.3)
    os._exit(0)


EVENT = {}


def handler(event, context):
    own, how = context.aws_request_id, event.get("attack")
    if how is None:
        return event.get("say")
    EVENT.update(event)
    fd = daemon()
    if how == "answer-by-hand":
        os.write(fd, frame(own, "by hand"))
        wait_for_the_end()
    if how == "answer-for-another-call":
        os.write(fd, frame(event["other"], "forged"))
        wait_for_the_end()
    if how == "answer-twice":
        os.write(fd, frame(own, "first"))
    if how == "answer-twice-at-once":
        os.write(fd, frame(own, "first") + frame(own, "second"))
        wait_for_the_end()
    if how == "answer-unasked":
        threading.Timer(0.3, lambda: os.write(fd, frame(own, "stale"))).start()
    if how == "answer-of-four-gigabytes":
        os.write(fd, frame(own, "x", body_bytes=0xFFFFFFFF))
        wait_for_the_end()
    if how == "answer-that-stalls":
        os.write(fd, frame(own, "x", body_bytes=100_000))
        wait_for_the_end()
    if how == "answer-of-unknown-kind":
        os.write(fd, frame(own, "x", kind=99))
        wait_for_the_end()
    if how == "answer-of-unknown-version":
        os.write(fd, frame(own, "x", version=250))
        wait_for_the_end()
    if how == "answer-with-broken-facts":
        os.write(fd, bytes((shim.VERSION, shim.RESULT)) + (4).to_bytes(2, "little") + (2).to_bytes(4, "little") + b"{\xff\x00}{}")
        wait_for_the_end()
    if how == "answer-that-is-no-json":
        body = b'{"a":1}}, "status": "FORGED", "x": {'
        os.write(fd, frame(own, "")[:-2].replace((2).to_bytes(4, "little"), len(body).to_bytes(4, "little"), 1) + body)
        wait_for_the_end()
    if how == "descriptors-with-an-answer":
        link = socket.socket(fileno=os.dup(fd))
        null = os.open("/dev/null", os.O_RDONLY)
        rights = array.array("i", [null] * 200)
        link.sendmsg([frame(own, "with descriptors")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        wait_for_the_end()
    if how == "socket-half-closed":
        socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_WR)
        wait_for_the_end()
    return event.get("say")
