"""Hostile requests to the control socket and to the metrics page of a running gateway.

The server, its loop and the handlers are the daemon's own, over a Unix socket; the gateway behind them has live links
and ARP entries. Its devices are missing, and so are the commands `stop` and `reload`, which end the loop and begin a
thread that reads files (`trials.fuzz.targets.config` is about those). An input is a stream of bytes, cut where it holds
a NUL into what arrives at once. Must hold: each whole line that is not behind a stream gets one line of JSON in
answer, or the server hangs up; an answer never says that the gateway failed; commands that only read change nothing;
what one client leaves is forgotten when it goes; the page of metrics answers HTTP, once.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.control.answers.every import CHANGES, QUESTIONS
from bridge.control.answers.question import Subject
from bridge.control.connection import LONGEST_REQUEST_BYTES, MOST_UNSENT_BYTES
from bridge.control.handlers import handlers_for
from bridge.control.metrics import GatewayCollector, MetricsServer
from bridge.control.server import ControlServer
from bridge.loop.loop import Loop
from bridge.ports.memory import MemoryPort
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable
from trials.fuzz.hostile import Failure, Target, raw, scratch_folder
from trials.fuzz.targets.flow import STATIC_ARP, packet
from trials.fuzz.targets.frames import MACS, configuration
from wire import ipv4
from wire.ethernet import IPV4_TYPE
from wire.units import SECOND_NS, address_int

READING = frozenset({"arp.show", "arp.entry", "alias.show", "flows", "route.show", "route.get", "route.table", "stats"})
DEADLINE_S = 20.0
_CONTROL, _METRICS = 0, 1


class ControlStage:
    """A gateway, its loop and its control socket; `now_ns` is its clock."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 1000 * SECOND_NS
        config = configuration(STATIC_ARP)
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(1), table=PlainTable(64))
        self.loop = Loop(self.gateway, clock=lambda: self.now_ns)
        self.path = folder / "control.sock"
        subject = Subject(self.gateway)
        self._ports = [MemoryPort("tap0", "tap"), MemoryPort("tun0", "tun")]
        handlers = handlers_for(subject, self.loop, {port.name: port.kind for port in self._ports})
        self.control = ControlServer(self.loop, self.path, "", handlers)
        self.metrics = MetricsServer(self.loop, "127.0.0.1:0", GatewayCollector(subject, self.loop.clock))
        self.populate()

    def populate(self) -> None:
        """Links and flows to tell about."""
        inside, remote = address_int("192.168.200.10"), address_int("203.0.113.5")
        for number in range(3):
            data = packet(ipv4.UDP, (inside, 5000 + number, remote, 53), flags=0x4000)
            self.gateway.receive("tap0", MACS["tap0"] + IPV4_TYPE + data, self.now_ns)

    def close(self) -> None:
        """Nothing is left of it."""
        self.control.close()
        self.metrics.close()
        for port in self._ports:
            port.close()
        self.loop.close()

    def state(self) -> Any:
        """The state that a question must not change."""
        gateway, now = self.gateway, self.now_ns
        links = sorted(
            (str(link.egress), *(getattr(link, name) for name in _LINK)) for link in gateway.aliases.links(now)
        )
        entries = [[tuple(entry) for entry in table.entries(now)] for table in gateway.arp.values()]
        drops = sorted(gateway.counters.drops_by_port.items())
        return links, entries, drops, len(gateway.fast), gateway.routes.entries()

    def turn(self, done: Callable[[], bool]) -> None:
        """Turn the loop until something is so."""
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            self.loop.turn(0.005)
            if time.monotonic() > deadline:
                raise Failure("no answer, and the connection is open")


_LINK = ("protocol", "inside", "inside_port", "outside_port", "remote", "state", "expires_ns", "packets", "bytes")


@cache
def _stage() -> tuple[tempfile.TemporaryDirectory[str], ControlStage]:
    """One for the whole process: what a client leaves behind would be met by the next."""
    folder = scratch_folder()
    return folder, ControlStage(Path(folder.name))


def episode(rng: random.Random, _most: int) -> int:
    """One connection."""
    data = raw(rng)
    if not data:
        return 0
    stage = _stage()[1]
    if data[0] % 8 == _METRICS:
        _ask_metrics(stage, data[1:])
    else:
        _ask_control(stage, data[1:])
    stage.now_ns += 1_000_000
    return 1


def _ask_metrics(stage: ControlStage, data: bytes) -> None:
    got = _spoken_to(stage, socket.create_connection(stage.metrics.address), data, lambda _: False)
    if got and not got.startswith(b"HTTP/1.1 "):
        raise Failure(f"an answer that is no HTTP: {got[:40]!r}")


def _ask_control(stage: ControlStage, data: bytes) -> None:
    lines = data.replace(b"\0", b"").split(b"\n")[:-1]
    asked = [_command(line) for line in lines]
    stage.loop.turn(0)  # timers that are due fire now, so that a change is the question's
    before = stage.state() if all(name is None or name in READING for name in asked) else None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(stage.path))
    streaming = "capture" in asked
    got = _spoken_to(stage, connection, data, lambda so_far: streaming and so_far.endswith(b"\n"))
    answers = [json.loads(line) for line in got.split(b"\n")[:-1]]
    for answer in answers:
        if "the gateway failed" in answer.get("error", ""):
            raise Failure(f"a bug while answering: {lines}")
        if set(answer) not in ({"ok", "result"}, {"ok", "code", "error"}):
            raise Failure(f"an answer of another form: {answer}")
    whole = all(len(line) <= LONGEST_REQUEST_BYTES for line in lines)
    if whole and not streaming and len(answers) not in (len(lines), len(lines) + 1):
        raise Failure(f"{len(answers)} answers to {len(lines)} requests")
    if before is not None and stage.state() != before:
        raise Failure(f"a question has changed something: {asked}")
    stage.turn(lambda: stage.control.clients == 0)
    if stage.loop.watching:
        raise Failure("a capture goes on behind its client's back")


def _spoken_to(
    stage: ControlStage, connection: socket.socket, data: bytes, is_enough: Callable[[bytes], bool]
) -> bytes:
    """Say it piece by piece, then that there is no more; all that is answered until the server hangs up."""
    got = bytearray()
    is_over = False
    with connection:
        connection.setblocking(False)

        def hear() -> bool:
            nonlocal is_over
            with contextlib.suppress(BlockingIOError):
                try:
                    part = connection.recv(1 << 16)
                except ConnectionError:
                    part = b""
                got.extend(part)
                is_over = is_over or not part
            return is_over or is_enough(bytes(got))

        for piece in data.split(b"\0"):
            if is_over:
                break
            with contextlib.suppress(BlockingIOError, ConnectionError):
                connection.send(piece)
            stage.loop.turn(0)
            hear()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        stage.turn(hear)
    if len(got) > MOST_UNSENT_BYTES:
        raise Failure("an answer without end")
    return bytes(got)


def _command(line: bytes) -> str | None:
    """The command of a line; None where the line is no request."""
    try:
        found = json.loads(line)["command"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        return None
    return found if isinstance(found, str) else None


def _line(command: str, **arguments: object) -> bytes:
    return json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"


def samples() -> list[bytes]:
    """A question of every kind, alone and together."""
    udp = packet(ipv4.UDP, (address_int("192.168.200.10"), 1, address_int("8.8.8.8"), 53)).hex()
    lines = [
        _line("arp.show", port="tap0"),
        _line("arp.add", ip="192.168.200.77", mac="02:00:00:00:00:77"),
        _line("arp.del", ip="192.168.200.77"),
        _line("arp.entry", ip="192.168.200.10", port="tap0"),
        _line("arp.probe", ip="192.168.200.12"),
        _line("arp.flush"),
        _line("alias.show"),
        _line("alias.flush", inside="192.168.200.11"),
        _line("flows"),
        _line("route.get", ip="203.0.113.7"),
        _line("route.show"),
        _line("route.table"),
        _line("stats"),
        _line("peers"),
        _line("trace", port="tap0", packet=udp),
        _line("trace", port="vpn", frame=udp, link_type=101),
        _line("capture", port="tap0"),
        b"{}\n[]\nnull\n",
        b'{"command": 1}\n{"command": "no"}\n',
    ]
    pages = [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /metrics HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\n\0\r\n",
    ]
    return (
        [b"\0" + line for line in lines]
        + [b"\0" + b"".join(lines[at : at + 3]) + b"{" for at in (0, 6, 9)]
        + [bytes([_METRICS]) + page for page in pages]
    )


_VALUES = (
    "null",
    "true",
    "-1",
    "1e400",
    "[]",
    "{}",
    '""',
    '"\\ud800"',
    '"tap1"',
    '"vpn:hk"',
    '"vpn:"',
    '"0.0.0.0"',
    "[[1]]",
    "101",
    '"zz"',
)
WORDS = [
    *(f'"{name}"'.encode() for name in (*QUESTIONS, *CHANGES, "capture")),
    *map(str.encode, _VALUES),
    b"\0",
    b"\n",
]
WORDS += [f'"{name}"'.encode() for name in ("port", "ip", "mac", "inside", "frame", "packet", "link_type", "arguments")]
TARGET = Target("control", episode, is_raw=True, samples=samples, words=WORDS)
