"""Conversations that are held while something happens between their ends: `python -m trials.traffic.held WORD ...`, in
the lab.

    accept ADDRESS PORT                   one TCP connection from whoever calls
    call HOST PORT SOURCE_PORT            one TCP connection to there
    beat ADDRESS PORT [HOST HOST_PORT]    UDP: a stamped datagram every millisecond to the other end, which is told, or
                                          heard first

Each says `ready` when it may be spoken to (`accept`: when it may be called), then obeys lines of standard input, and
answers each of them with a JSON document. Of a connection:

    peer              whom it is with, as this end sees it
    send SEED BYTES   send pseudo-random bytes
    take BYTES        receive so many
    pour SEED BYTES   send 4 KB every other millisecond, until that much is sent and the next line has come, and no more
                      after that; says `begun` before
    drain             receive until the other end sends no more

and of a beat:

    mute, speak       send no more; send again
    since NS          wait for the first datagram that the other end sent after NS (monotonic): when it came here
"""

from __future__ import annotations

import hashlib
import json
import random
import select
import socket
import struct
import sys
import time

LIMIT_S = 30.0
"""For every wait; what takes longer is a failure."""
_PIECE_BYTES = 4096
_PAUSE_S = 0.002
_BEAT_NS = 1_000_000
_STAMP = struct.Struct("!Q")


def main(words: list[str]) -> int:
    """The command line."""
    kind, *rest = words
    if kind == "beat":
        _beat(*rest)
        return 0
    if kind == "accept":
        with socket.create_server((rest[0], int(rest[1]))) as server:
            _say("ready")
            server.settimeout(LIMIT_S)
            connection, _ = server.accept()
    else:
        host, port, source_port = rest
        connection = socket.create_connection((host, int(port)), LIMIT_S, ("", int(source_port)))
        _say("ready")
    connection.settimeout(LIMIT_S)
    with connection:
        for line in sys.stdin:
            _say(json.dumps(_obey(connection, *line.split())))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _obey(connection: socket.socket, order: str, *more: str) -> dict[str, object]:
    if order == "peer":
        host, port = connection.getpeername()
        return {"peer": f"{host}:{port}"}
    if order == "send":
        data = random.Random(int(more[0])).randbytes(int(more[1]))
        connection.sendall(data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if order == "pour":
        return _pour(connection, int(more[0]), int(more[1]))
    return _take(connection, int(more[0]) if more else sys.maxsize)


def _pour(connection: socket.socket, seed: int, least: int) -> dict[str, object]:
    source, digest, sent = random.Random(seed), hashlib.sha256(), 0
    while not select.select([sys.stdin], [], [], _PAUSE_S)[0] or sent < least:
        piece = source.randbytes(_PIECE_BYTES)
        connection.sendall(piece)
        digest.update(piece)
        sent += len(piece)
        if sent == len(piece):
            _say("begun")
    sys.stdin.readline()
    connection.shutdown(socket.SHUT_WR)
    return {"bytes": sent, "sha256": digest.hexdigest()}


def _take(connection: socket.socket, wanted: int) -> dict[str, object]:
    digest, got = hashlib.sha256(), 0
    while got < wanted and (piece := connection.recv(min(wanted - got, 1 << 16))):
        digest.update(piece)
        got += len(piece)
    return {"bytes": got, "sha256": digest.hexdigest()}


def _beat(address: str, port: str, host: str = "", host_port: str = "0") -> None:
    """One end of a beat; it ends with its standard input."""
    target = (host, int(host_port)) if host else None
    sent, is_muted, since_ns = 0, False, 0
    due_ns = time.monotonic_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking:
        talking.bind((address, int(port)))
        talking.setblocking(False)
        _say("ready")
        while True:
            wait_s = max(due_ns - time.monotonic_ns(), 0) / 1e9 if target and not is_muted else LIMIT_S
            ready = select.select([talking, sys.stdin], [], [], wait_s)[0]
            if sys.stdin in ready:
                words = sys.stdin.readline().split()
                if not words:
                    return
                if words[0] != "since":
                    is_muted = words[0] == "mute"
                    due_ns = time.monotonic_ns()
                    _say(json.dumps({"sent": sent}))
                else:
                    since_ns = int(words[1])
            if talking in ready:
                datagram, source = talking.recvfrom(64)
                target = target or source
                if since_ns and _STAMP.unpack(datagram)[0] > since_ns:
                    _say(json.dumps({"heard_ns": time.monotonic_ns()}))
                    since_ns = 0
            if target and not is_muted and time.monotonic_ns() >= due_ns:
                due_ns = max(due_ns + _BEAT_NS, time.monotonic_ns() - 100 * _BEAT_NS)
                sent += 1
                try:
                    talking.sendto(_STAMP.pack(time.monotonic_ns()), target)
                except OSError:  # no route for the moment, an ICMP error about an earlier one, or a full queue
                    continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
