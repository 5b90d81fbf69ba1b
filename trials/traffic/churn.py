"""Traffic that comes and goes, from one host of the lab: `python -m trials.traffic.churn SEED RATE ADDRESS...`.

Until its standard input ends it begins about RATE exchanges a second with the servers at the addresses, which are
`python -m trials.traffic.churn serve ADDRESS` (that of `lab.peers` takes one connection at a time, and ends with a bad
one): TCP connections, some ended by a reset, UDP questions of all sizes (large ones in fragments), pings, knocks at
closed ports, packets whose time to live ends on the way, fragments of which the rest never comes. A failure is
counted and left behind; at the end it prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from lab.peers import PORT, asked

_WAIT_S = 1.0
_REQUEST = struct.Struct("!QQ")
_MORE_FRAGMENTS = 0x2000
_IP_MTU_DISCOVER = 10  # 0, IP_PMTUDISC_DONT: what is too long leaves in fragments


class Churn:
    """The exchanges of one host. `done`: (kind, `ok` or why not) and how often."""

    def __init__(self, seed: int, remotes: list[str]) -> None:
        self.rng = random.Random(seed)
        self.done: Counter[tuple[str, str]] = Counter()
        self._remotes = remotes
        self._kinds: list[tuple[Callable[[str], str], int]] = [
            (self.connection, 30),
            (self.question, 40),
            (self.echo, 10),
            (self.knock, 8),
            (self.hop, 6),
            (self.orphan, 6),
            (self.bulk, 2),
        ]

    def once(self) -> None:
        """One exchange, of one kind or another."""
        kinds, weights = zip(*self._kinds, strict=True)
        kind = self.rng.choices(kinds, weights)[0]
        try:
            outcome = kind(self.rng.choice(self._remotes))
        except OSError as error:
            outcome = type(error).__name__
        self.done[kind.__name__, outcome] += 1

    def connection(self, remote: str) -> str:
        """TCP: some bytes each way, then a FIN or a reset."""
        return self.transfer(remote, self.rng.randrange(20_000), self.rng.randrange(20_000))

    def bulk(self, remote: str) -> str:
        """As many as make super-frames."""
        return self.transfer(remote, self.rng.randrange(2_000_000), self.rng.randrange(2_000_000))

    def transfer(self, remote: str, up: int, down: int) -> str:
        """So many bytes there, so many back."""
        with socket.create_connection((remote, PORT), timeout=_WAIT_S) as connection:
            connection.sendall(_REQUEST.pack(up, down) + bytes(up))
            reader = connection.makefile("rb")
            reader.readline()
            got = len(reader.read(down))
            if self.rng.random() < 0.3:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "ok" if got == down else "cut"

    def question(self, remote: str) -> str:
        """UDP, one datagram or a few, each with its echo."""
        size_bytes = self.rng.choice((1, 40, 200, 1200, 1460, 4000, 9000))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, 0)
            asking.settimeout(_WAIT_S)
            asking.connect((remote, PORT))
            for number in range(self.rng.choice((1, 1, 2, 20))):
                payload = asked(number, size_bytes)
                asking.send(payload)
                if not asking.recv(1 << 16).endswith(payload):
                    return "spoiled"
        return "ok"

    def echo(self, remote: str) -> str:
        """A ping by the kernel's own socket for it, where users may have one, else by a raw one."""
        return self._ping(remote, 64)

    def hop(self, remote: str) -> str:
        """The gateway is where its time to live ends."""
        return self._ping(remote, 1)

    def _ping(self, remote: str, ttl: int) -> str:
        from lab.peers import ping  # noqa: PLC0415 - a raw socket: only here

        told = ping(remote, str(ttl), str(self.rng.choice((0, 56, 1000))))
        return "ok" if told["ok"] or (ttl == 1 and told["type"] == 11) else "silent"

    def knock(self, remote: str) -> str:
        """At a port where nobody listens."""
        with socket.socket(socket.AF_INET, self.rng.choice((socket.SOCK_STREAM, socket.SOCK_DGRAM))) as knocking:
            knocking.settimeout(_WAIT_S)
            try:
                knocking.connect((remote, self.rng.randrange(2000, 3000)))
                knocking.send(b"knock")
                knocking.recv(1)
            except ConnectionRefusedError:
                return "ok"
        return "answered"

    def orphan(self, remote: str) -> str:
        """A fragment of a datagram of which nothing else ever comes, the first or a later one."""
        offset = self.rng.choice((0, 173))
        payload = struct.pack("!HHHH", self.rng.randrange(1024, 65536), PORT, 3000, 0) + bytes(1376)
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            20 + len(payload),
            self.rng.randrange(1, 65536),
            _MORE_FRAGMENTS | offset,
            64,
            socket.IPPROTO_UDP,
            0,
            bytes(4),
            socket.inet_aton(remote),
        )
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(header + payload, (remote, 0))
        return "ok"


class _Transfer(socketserver.BaseRequestHandler):
    """The far end of a connection: so many bytes there, so many back."""

    def handle(self) -> None:
        self.request.settimeout(_WAIT_S)
        with suppress(OSError, struct.error), self.request.makefile("rb") as reader:
            up, down = _REQUEST.unpack(reader.read(_REQUEST.size))
            reader.read(up)
            self.request.sendall(b"{}\n" + bytes(down))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def serve(address: str) -> None:
    """TCP transfers, each in a thread, and UDP echoes, until killed."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, 0)
    echo.bind((address, PORT))
    threading.Thread(target=_Server((address, PORT), _Transfer).serve_forever, daemon=True).start()
    print("ready", flush=True)
    while True:
        data, client = echo.recvfrom(1 << 16)
        with suppress(OSError):
            echo.sendto(data, client)


def main(words: list[str]) -> int:
    """Until standard input ends."""
    if words[0] == "serve":
        serve(words[1])
    if words[0] == "once":
        return 0 if Churn(1, []).transfer(words[1], 20_000_000, 20_000_000) == "ok" else 1
    churn, pause_s = Churn(int(words[0]), words[2:]), 1 / float(words[1])
    due_s = time.monotonic()
    print("ready", flush=True)
    while True:
        due_s = max(due_s + churn.rng.expovariate(1) * pause_s, time.monotonic() - _WAIT_S)
        ready = select.select([0], [], [], max(due_s - time.monotonic(), 0))[0]
        if ready and not os.read(0, 64):
            break
        churn.once()
    found: dict[str, dict[str, int]] = {}
    for (kind, outcome), number in sorted(churn.done.items()):
        found.setdefault(kind, {})[outcome] = number
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
