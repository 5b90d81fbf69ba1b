"""Small programs for both ends of a flow, each run inside a namespace: `python -m lab.peers WORD ...`.

    serve ADDRESS                 TCP and UDP on PORT of an address of this host; prints `ready` when it listens
    transfer HOST UP DOWN         a TCP connection: UP bytes there, DOWN bytes back, both compared by SHA-256
    ask HOST BYTES [COUNT]        UDP datagrams of BYTES, each echoed with the source address that arrived there
    stream HOST BYTES COUNT RATE  the same, but RATE datagrams a second without waiting for echoes, and what they tell
    ping HOST [TTL] [BYTES]       one ICMP echo request that must not be fragmented, and whoever answers it
    discover HOST                 UDP datagrams with DF, as long as the kernel believes that they may be, until one
                                  is echoed: its size, and all that were tried
    knock HOST PORT               whether TCP and UDP of a closed port are refused, as they should be

Clients print one JSON document. They use the kernel's own stack on both sides: what arrives was taken by a real TCP,
reassembled by a real IP, verified by real checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from wire.checksum import checksum

PORT = 7777
LIMIT_S = 20.0
"""For every wait; what takes longer is a failure."""
_CHUNK_BYTES = 1 << 18
_REQUEST = struct.Struct("!QQ")
_SOURCE = struct.Struct("!4sH")
_NUMBER = struct.Struct("!I")
_QUIET_S = 2.0
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_IP_MTU_DISCOVER = 10  # linux/in.h; the socket module has no names for these before Python 3.14
_IP_PMTUDISC_DONT, _IP_PMTUDISC_DO, _IP_PMTUDISC_PROBE = 0, 2, 3
"""DF clear; DF set, and nothing longer than the path's MTU is believed to be; DF set, whatever that is."""
_IP_MTU = 14
_IP_AND_UDP_BYTES = 28


def serve(address: str) -> None:
    """Serve TCP transfers and UDP echoes until killed, one connection after the other."""
    listener = socket.create_server((address, PORT), backlog=64)
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    echo.bind((address, PORT))
    print("ready", flush=True)
    while True:
        for ready in select.select([listener, echo], [], [])[0]:
            if ready is echo:
                data, (host, port) = echo.recvfrom(1 << 16)
                echo.sendto(_SOURCE.pack(socket.inet_aton(host), port) + data, (host, port))
            else:
                connection, (host, port) = listener.accept()
                with connection:
                    _serve_transfer(connection, f"{host}:{port}")


def _serve_transfer(connection: socket.socket, source: str) -> None:
    connection.settimeout(LIMIT_S)
    up, down = _REQUEST.unpack(_exactly(connection, _REQUEST.size))
    received = _digest(connection, up)
    head = json.dumps({"source": source, "sha256": received}).encode() + b"\n"
    connection.sendall(head)
    for part in _pattern(down, seed=2):
        connection.sendall(part)


def transfer(host: str, up: str, down: str) -> dict[str, object]:
    """A TCP connection; the document says whether both directions came through whole, and how fast."""
    up_bytes, down_bytes = int(up), int(down)
    with socket.create_connection((host, PORT), timeout=LIMIT_S) as connection:
        local = connection.getsockname()
        connection.sendall(_REQUEST.pack(up_bytes, down_bytes))
        started = time.monotonic()
        sent = hashlib.sha256()
        for part in _pattern(up_bytes, seed=1):
            connection.sendall(part)
            sent.update(part)
        reader = connection.makefile("rb", buffering=_CHUNK_BYTES)
        answer = json.loads(reader.readline())
        up_s = time.monotonic() - started
        started = time.monotonic()
        got = hashlib.sha256()
        left = down_bytes
        while left and (part := reader.read(min(left, _CHUNK_BYTES))):
            got.update(part)
            left -= len(part)
        down_s = time.monotonic() - started
    wanted = hashlib.sha256()
    for part in _pattern(down_bytes, seed=2):
        wanted.update(part)
    return {
        "ok": answer["sha256"] == sent.hexdigest() and got.digest() == wanted.digest() and not left,
        "source": f"{local[0]}:{local[1]}",
        "seen_as": answer["source"],
        "up_bytes": up_bytes,
        "up_s": round(up_s, 3),
        "down_bytes": down_bytes,
        "down_s": round(down_s, 3),
    }


def ask(host: str, size: str, count: str = "1") -> dict[str, object]:
    """UDP datagrams, one after the other; larger ones than the MTU leave as fragments."""
    size_bytes = int(size)
    answered, seen = 0, ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        asking.settimeout(LIMIT_S / 4)
        asking.connect((host, PORT))
        local = asking.getsockname()
        for number in range(int(count)):
            payload = asked(number, size_bytes)
            asking.send(payload)
            try:
                answer = asking.recv(1 << 16)
            except (TimeoutError, ConnectionRefusedError):
                continue
            address, port = _SOURCE.unpack_from(answer)
            seen = f"{socket.inet_ntoa(address)}:{port}"
            answered += answer[_SOURCE.size :] == payload
    return {
        "ok": answered == int(count),
        "source": f"{local[0]}:{local[1]}",
        "seen_as": seen,
        "bytes": size_bytes,
        "answered": answered,
    }


def asked(number: int, size_bytes: int) -> bytes:
    """The payload of the datagram of that number."""
    return random.Random(number).randbytes(size_bytes)


def stream(host: str, size: str, count: str, rate: str) -> dict[str, object]:
    """Numbered UDP datagrams at a steady pace and their echoes: how many came, which were the longest run that did not,
    and the last one that did. Ends when all are back, or nothing has come for 2 s after the last was sent."""
    size_bytes, wanted, pause_s = int(size), int(count), 1 / float(rate)
    block = random.Random(size_bytes).randbytes(max(size_bytes - _NUMBER.size, 0))
    seen = bytearray(wanted)
    echoes = late = spoiled = refused = sent = 0
    newest = -1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talking:
        talking.connect((host, PORT))
        talking.setblocking(False)
        began = time.monotonic()
        heard = began
        while sent < wanted or (not all(seen) and time.monotonic() < heard + _QUIET_S):
            now = time.monotonic()
            while sent < wanted and began + sent * pause_s <= now:
                try:
                    talking.send(_NUMBER.pack(sent) + block)
                except OSError:
                    refused += 1
                sent += 1
                heard = now
            due_s = began + sent * pause_s - now if sent < wanted else heard + _QUIET_S - now
            if not select.select([talking], [], [], max(due_s, 0))[0]:
                continue
            try:
                answer = talking.recv(1 << 16)
            except OSError:  # an ICMP error about an earlier one
                refused += 1
                continue
            number = _NUMBER.unpack_from(answer, _SOURCE.size)[0]
            if answer[_SOURCE.size + _NUMBER.size :] != block or number >= wanted:
                spoiled += 1
                continue
            echoes += 1
            late += number < newest
            newest = max(newest, number)
            seen[number] = 1
            heard = time.monotonic()
    answered = sum(seen)
    return {
        "ok": answered == wanted and not spoiled,
        "sent": wanted,
        "answered": answered,
        "repeated": echoes - answered,
        "late": late,
        "spoiled": spoiled,
        "refused": refused,
        "last": newest,
        "longest_gap": max(map(len, bytes(seen).split(b"\x01"))),
    }


def ping(host: str, ttl: str = "64", size: str = "56") -> dict[str, object]:
    """One echo request; the document names the answering address with ICMP type and code."""
    identifier = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, int(ttl))
        raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        payload = random.Random(identifier).randbytes(int(size))
        message = bytearray(struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, 1) + payload)
        message[2:4] = checksum(message).to_bytes(2, "big")
        started = time.monotonic()
        raw.sendto(message, (host, 0))
        while (left_s := started + LIMIT_S / 4 - time.monotonic()) > 0:
            raw.settimeout(left_s)
            try:
                packet, (answerer, _) = raw.recvfrom(1 << 16)
            except TimeoutError:
                break
            body = packet[(packet[0] & 15) * 4 :]
            kind, code = body[0], body[1]
            is_reply = kind == _ECHO_REPLY and body[4:6] == message[4:6]
            is_error = kind in (3, 11) and body[8 + (body[8] & 15) * 4 :][4:6] == message[4:6]
            if is_reply or is_error:
                return {
                    "ok": is_reply and body[4:] == message[4:],
                    "from": answerer,
                    "type": kind,
                    "code": code,
                    "mtu": int.from_bytes(body[6:8], "big") if (kind, code) == (3, 4) else None,
                    "ms": round((time.monotonic() - started) * 1000, 3),
                }
    return {"ok": False, "from": None, "type": None, "code": None, "mtu": None, "ms": None}


def discover(host: str) -> dict[str, object]:
    """RFC 1191 as a host does it; `mtu` is that of the packet that came through."""
    tried: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        asking.settimeout(1.0)
        asking.connect((host, PORT))
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            mtu_bytes = asking.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            payload = asked(len(tried), mtu_bytes - _IP_AND_UDP_BYTES)
            tried.append(mtu_bytes)
            try:
                asking.send(payload)
                answer = asking.recv(1 << 16)
            except OSError:  # nothing came, or an ICMP error of which the kernel has taken note
                continue
            if answer[_SOURCE.size :] == payload:
                return {"ok": True, "mtu": mtu_bytes, "tried": tried}
    return {"ok": False, "mtu": None, "tried": tried}


def knock(host: str, port: str) -> dict[str, object]:
    """Both protocols at a port where nobody listens: a TCP reset, and an ICMP error that reaches the UDP socket."""
    found = {}
    for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        with socket.socket(socket.AF_INET, kind) as knocking:
            knocking.settimeout(LIMIT_S / 4)
            try:
                knocking.connect((host, int(port)))
                knocking.send(b"knock")
                knocking.recv(1)
                found[name] = "answered"
            except ConnectionRefusedError:
                found[name] = "refused"
            except TimeoutError:
                found[name] = "silent"
    return {"ok": found == {"tcp": "refused", "udp": "refused"}, **found}


def _pattern(size_bytes: int, seed: int) -> Iterator[bytes]:
    """The same pseudo-random bytes for the same seed: one block, and that block turned by one byte each time."""
    block = random.Random(seed).randbytes(_CHUNK_BYTES) * 2
    for number, start in enumerate(range(0, size_bytes, _CHUNK_BYTES)):
        at = number % _CHUNK_BYTES
        yield block[at : at + min(_CHUNK_BYTES, size_bytes - start)]


def _exactly(connection: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes and (part := connection.recv(size_bytes - len(data))):
        data += part
    return data


def _digest(connection: socket.socket, size_bytes: int) -> str:
    digest, left = hashlib.sha256(), size_bytes
    while left and (part := connection.recv(min(left, _CHUNK_BYTES))):
        digest.update(part)
        left -= len(part)
    return digest.hexdigest()


_CLIENTS: dict[str, Callable[..., dict[str, object]]] = {
    "transfer": transfer,
    "ask": ask,
    "stream": stream,
    "ping": ping,
    "discover": discover,
    "knock": knock,
}


def main(words: list[str]) -> int:
    """0 where all came through, 1 where not."""
    if words[0] == "serve":
        serve(words[1])
    document = _CLIENTS[words[0]](*words[1:])
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
