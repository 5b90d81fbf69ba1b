"""A flood of initiations, for the lab alone: `python -m trials.floods.initiations ADDRESS PORT PUBLIC_KEY SOURCES COUNT
RATE`.

SOURCES is a prefix of this host's addresses (`203.0.113.0/24`, local on `lo`); each address sends from several ports.
Of 20 initiations 16 are garbage with a right mac1, 2 garbage with a wrong one, and 2 are whole handshakes of
a static key that nobody knows: those cost the receiver most. None of them deserves more than a cookie reply.

It says `begun`, sends COUNT initiations and then goes on, RATE a second, until a line comes on standard input; it says
`enough` after COUNT. Then it prints what it sent and what came back, by kind of message, with the most bytes of one.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import select
import socket
import sys
import time
from collections import Counter

from tunnel import noise, tai64n
from tunnel.cookies import CookieJar
from tunnel.messages import INITIATION_BYTES, INITIATION_HEAD, MACS_BYTES

PREFIX = "203.0.113.0/24"
PORTS_OF_A_SOURCE = 4
_BURST = 32
_PREPARED = 4_000
_WHOLE_IN_20, _WRONG_IN_20 = 2, 2


def initiations(public: bytes, count: int, rng: random.Random) -> list[bytes]:
    """That many different ones for the holder of `public`."""
    jar = CookieJar(public)
    found = []
    for number in range(count):
        kind = number % 20
        if kind < _WHOLE_IN_20:
            stranger = noise.LocalKeys(rng.randbytes(32))
            body, _ = noise.initiate(
                stranger,
                noise.RemoteKeys(stranger, public),
                rng.randbytes(32),
                tai64n.later(time.time_ns(), tai64n.NEVER),
                rng.getrandbits(32),
            )
        else:
            body = INITIATION_HEAD + rng.randbytes(INITIATION_BYTES - MACS_BYTES - len(INITIATION_HEAD))
        message = jar.finish(body, 0)
        if _WHOLE_IN_20 <= kind < _WHOLE_IN_20 + _WRONG_IN_20:
            message = body + rng.randbytes(16) + bytes(16)
        assert len(message) == INITIATION_BYTES
        found.append(message)
    return found


def _sockets(sources: str) -> list[socket.socket]:
    found = []
    for address in ipaddress.ip_network(sources):
        for _ in range(PORTS_OF_A_SOURCE):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            opened.bind((str(address), 0))
            found.append(opened)
    return found


def flood(target: tuple[str, int], public: bytes, sources: str, count: int, rate: float) -> dict[str, object]:
    """Send, until told to stop; what came of it."""
    prepared = initiations(public, _PREPARED, random.Random(count))
    sockets = _sockets(sources)
    answers: Counter[str] = Counter()
    longest = sent = refused = 0
    print("begun", flush=True)
    began = time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = int((time.monotonic() - began) * rate)
        if sent >= due:
            select.select([sys.stdin], [], [], _BURST / rate)
            continue
        for _ in range(min(_BURST, due - sent)):
            speaking = sockets[sent * 7919 % len(sockets)]
            try:
                speaking.sendto(prepared[sent % _PREPARED], target)
            except OSError:
                refused += 1
            sent += 1
            if sent == count:
                print("enough", flush=True)
            if (answer := _answer(speaking)) is not None:
                answers[str(answer[0])] += 1
                longest = max(longest, len(answer))
    took_s = time.monotonic() - began
    for speaking in sockets:
        while (answer := _answer(speaking)) is not None:
            answers[str(answer[0])] += 1
            longest = max(longest, len(answer))
    return {
        "ok": True,
        "sent": sent,
        "refused": refused,
        "rate": round(sent / took_s),
        "answers": answers,
        "longest_answer": longest,
    }


def _answer(speaking: socket.socket) -> bytes | None:
    try:
        return speaking.recv(1 << 16)
    except OSError:  # nothing there, or an ICMP error
        return None


def main(words: list[str]) -> int:
    """The command line."""
    address, port, public, sources, count, rate = words
    print(json.dumps(flood((address, int(port)), base64.b64decode(public), sources, int(count), float(rate))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
