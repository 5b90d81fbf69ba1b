"""The forwarder over captures: no devices, no privileges, the capture's timestamps are the clock.

Each input is read twice. The first reading checks every record, so that a damaged file is refused before the first
packet is walked, and finds out whether the file is in order of time. The second reading streams a file in order;
another file is held in memory and sorted, and packets of one time keep their order. The merged packets of all inputs
then drive the gateway: timers that are due up to and including a packet's time fire first, each at its own time.

Nothing here depends on the wall clock, on the environment or on the order of a hash: equal inputs and seeds give equal
bytes.
"""

from __future__ import annotations

import heapq
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bridge.config.into_walk import gateway_settings, is_ethernet
from bridge.config.load import Config
from bridge.config.values import is_node_name
from bridge.walk.effects import Effect, Send
from bridge.walk.gateway import Gateway
from bridge.walk.settings import GatewaySettings
from route.table import RouteTable, node_of
from wire import gso, pcap
from wire.captured import as_received
from wire.ethernet import HEADER_BYTES
from wire.gso import GsoHeader
from wire.pcap import LINK_ETHERNET, LINK_RAW, LINKS_RAW, CaptureError, Record
from wire.units import SECOND_NS

OUTPUTS = ("tap0", "tap1", "tun0", "vpn")
# A deadline that its own tick does not move would stop the virtual clock; no correct timer comes near this many.
_MOST_TICKS_AT_ONE_TIME = 100_000


class Misuse(ValueError):
    """Inputs or outputs that do not fit the configuration: a usage error."""


class Input(NamedTuple):
    """One capture and the port that it came in by (a name that `port_name` gave)."""

    port: str
    path: Path


class Passed(NamedTuple):
    """Traffic of a port: packets and bytes, in and out, and its drops by reason."""

    port: str
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: dict[str, int]


class ReplaySummary(NamedTuple):
    """The outcome of a replay. `began_ns` and `ended_ns` are times of the virtual clock, which begins at 0 where there
    was no packet."""

    began_ns: int
    ended_ns: int
    ports: list[Passed]


def port_name(settings: GatewaySettings, routes: RouteTable, text: str) -> str:
    """The gateway's name of a port that a user named; `Misuse` where the configuration has no such port.

    `vpn` and `vpn:DEFAULT` are one port. Other nodes are known by their route file or their peer table; a configuration
    without any peer (replay needs none) may be given packets of any node.
    """
    base, colon, node = text.partition(":")
    if base not in OUTPUTS or (colon and base != "vpn"):
        raise Misuse(f"{text!r} is no port: tap0, tap1, tun0, vpn or vpn:NODE")
    if base == "vpn":
        if not settings.has_tunnel:
            raise Misuse("the configuration has no [vpn], and no tunnel without it")
        if not colon and not settings.has_default_port:
            raise Misuse("'vpn' is the default node, and without [vpn] there is none: name a node, as vpn:NODE")
    elif settings.port(base) is None:
        raise Misuse(f"the configuration has no [{base}]")
    if not colon:
        return text
    if node == settings.default_node:
        return "vpn"
    if node not in _nodes(settings, routes) and (settings.peers or not is_node_name(node)):
        raise Misuse(f"{text!r}: the configuration knows no node of this name")
    return text


def run(
    config: Config,
    routes: RouteTable,
    inputs: Sequence[Input],
    directory: Path,
    *,
    linger_ns: int = 0,
    announce: bool = False,
    seed: int = 0,
    tell: Callable[[str], object] | None = None,
) -> ReplaySummary:
    """Replay the inputs; the outputs are written into `directory`, which is made where it is missing.

    `tell` gets one line of JSON for each event. Raises `Misuse` where an output would overwrite an input,
    `CaptureError` where an input cannot be read or has the wrong link type, `OSError` as the file system does.
    """
    settings = gateway_settings(config)
    nodes = _nodes(settings, routes) | {given.port.partition(":")[2] for given in inputs} - {""}
    ports = [*OUTPUTS, *(f"vpn:{node}" for node in sorted(nodes))]
    paths = {port: directory / f"{port.replace(':', '-')}.pcap" for port in ports}
    _refuse_overwriting(inputs, paths.values())
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {
            port: pcap.PcapWriter(stack.enter_context(path.open("wb")), _link_type(config, port))
            for port, path in paths.items()
        }
        streams = [_stream(config, given, stack) for given in inputs]
        gateway = Gateway(settings, routes, random.Random(seed), events=tell is not None)
        ethernet = frozenset(port for port in writers if is_ethernet(config, port))
        replay = _Replay(gateway, writers, ethernet, tell)
        replay.through(heapq.merge(*streams, key=attrgetter("timestamp_ns")), linger_ns=linger_ns, announce=announce)
    return ReplaySummary(replay.began_ns, replay.now, replay.passed())


class _Packet(NamedTuple):
    timestamp_ns: int
    port: str
    data: bytes | bytearray
    gso: GsoHeader | None


class _Replay:
    """One replay on its way: the clock, the gateway, and where effects go."""

    def __init__(
        self,
        gateway: Gateway,
        writers: dict[str, pcap.PcapWriter],
        ethernet: frozenset[str],
        tell: Callable[[str], object] | None,
    ) -> None:
        self.gateway = gateway
        self.began_ns = self.now = 0
        self._writers = writers
        self._tell = tell
        self._passed = {port: [0, 0, 0, 0] for port in writers}
        self._ethernet = ethernet

    def through(self, packets: Iterable[_Packet], *, linger_ns: int, announce: bool) -> None:
        """Walk the packets, then let the clock run on for `linger_ns`."""
        begun = False
        for packet in packets:
            if not begun:
                self._begin(packet.timestamp_ns, announce=announce)
                begun = True
            self._until(packet.timestamp_ns)
            passed = self._passed[packet.port]
            passed[0] += 1
            passed[1] += len(packet.data)
            if self._tell is not None:
                self._told_frame(packet.port, "rx", bytes(packet.data))
            self._carry_out(self.gateway.receive(packet.port, packet.data, self.now, packet.gso))
        if not begun:
            self._begin(0, announce=announce)
        self._until(self.now + linger_ns)

    def passed(self) -> list[Passed]:
        """The traffic of each port. The gateway counts drops by port, so those of a node stand with `vpn`."""
        drops: dict[str, dict[str, int]] = {port: {} for port in self._passed}
        for (port, reason), number in sorted(self.gateway.counters.drops_by_port.items()):
            drops[port][reason.value] = number
        return [
            Passed(port, counts[0], counts[1], counts[2], counts[3], drops[port])
            for port, counts in self._passed.items()
        ]

    def _begin(self, now: int, *, announce: bool) -> None:
        self.now = self.began_ns = now
        self._carry_out(self.gateway.start(now, announces=announce))

    def _until(self, then: int) -> None:
        """Fire the timers that are due up to `then`, and set the clock to it."""
        ticks = 0
        while (deadline := self.gateway.next_deadline()) is not None and deadline <= then:
            ticks = ticks + 1 if deadline <= self.now else 0
            assert ticks < _MOST_TICKS_AT_ONE_TIME, f"a deadline at {deadline} that its tick does not move"
            self.now = max(self.now, deadline)
            self._carry_out(self.gateway.tick(self.now))
        self.now = then

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                is_whole = effect.port.partition(":")[0] != "vpn"
                link_bytes = HEADER_BYTES if effect.port in self._ethernet else 0
                for frame in _written_frames(effect, link_bytes, is_whole=is_whole):
                    self._sent(effect.port, frame)
            elif self._tell is not None:
                self._told(effect.port, effect.kind, effect.facts)

    def _sent(self, port: str, frame: bytes | bytearray) -> None:
        self._writers[port].write(self.now, frame)
        passed = self._passed[port]
        passed[2] += 1
        passed[3] += len(frame)
        if self._tell is not None:
            self._told_frame(port, "tx", bytes(frame))

    def _told_frame(self, port: str, event: str, frame: bytes) -> None:
        from bridge.replay.summary import summary  # noqa: PLC0415 - dpkt, which the daemon's start does not wait for

        line = summary(frame, ethernet=port in self._ethernet)
        self._told(port, event, {"bytes": len(frame), "summary": line})

    def _told(self, port: str, event: str, facts: dict[str, object]) -> None:
        assert self._tell is not None
        rest = json.dumps({"port": port, "event": event, **facts})
        self._tell(f'{{"t": {seconds_text(self.now)}, {rest[1:]}')


def seconds_text(time_ns: int) -> str:
    """Nanoseconds as seconds with nine decimals: exact, where a float would round."""
    seconds, nanoseconds = divmod(time_ns, SECOND_NS)
    return f"{seconds}.{nanoseconds:09d}"


def _written_frames(sent: Send, link_bytes: int, *, is_whole: bool) -> Iterator[bytes | bytearray]:
    """The frames of an effect, with whole checksums. A device takes a super-frame whole; for a peer it is cut."""
    if sent.gso is None:
        yield sent.frame
        return
    packet = bytearray(sent.frame[link_bytes:])
    if is_whole:
        gso.complete(packet, sent.gso)
        yield sent.frame[:link_bytes] + packet
        return
    for piece in gso.segment(packet, sent.gso):
        yield sent.frame[:link_bytes] + piece


def _nodes(settings: GatewaySettings, routes: RouteTable) -> set[str]:
    """The nodes beside the default one that route files or peers name."""
    routed = {node for row in routes.summary() if (node := node_of(row["target"])) is not None}
    return (routed | {peer.name for peer in settings.peers}) - {settings.default_node}


def _link_type(config: Config, port: str) -> int:
    return LINK_ETHERNET if is_ethernet(config, port) else LINK_RAW


def _refuse_overwriting(inputs: Sequence[Input], outputs: Iterable[Path]) -> None:
    existing = [path for path in outputs if path.exists()]
    for given in inputs:
        for path in existing:
            if given.path.exists() and path.samefile(given.path):
                raise Misuse(f"{given.path} is an input, and the output {path} would overwrite it")


def _stream(config: Config, given: Input, stack: ExitStack) -> Iterator[_Packet]:
    """The packets of one input in order of time, once the whole file has been checked."""
    name = str(given.path)
    file: BinaryIO = stack.enter_context(given.path.open("rb"))
    if not file.seekable():
        file = _held(file, stack)
    wanted = frozenset({LINK_ETHERNET}) if is_ethernet(config, given.port) else LINKS_RAW
    in_order, latest_ns, names = True, 0, set()
    for number, record in enumerate(pcap.read(file, name), start=1):
        if record.link_type not in wanted:
            raise CaptureError(
                f"{name}: record {number}: link type {record.link_type}, but {given.port} carries"
                + (" Ethernet (1)" if LINK_ETHERNET in wanted else " raw IP (101, 228 or 12)")
            )
        names.add(record.interface)
        in_order = in_order and record.timestamp_ns >= latest_ns
        latest_ns = record.timestamp_ns
    file.seek(0)
    records: Iterable[Record] = pcap.read(file, name)
    if not in_order:
        records = sorted(records, key=attrgetter("timestamp_ns"))
    is_own_port = given.port in names
    mtu_bytes = _mtu_of(config, given.port)

    def packet(record: Record) -> _Packet:
        frame, claims = as_received(
            record.data,
            mtu_bytes,
            is_ethernet=is_ethernet(config, given.port),
            segment_bytes=record.segment_bytes,
        )
        return _Packet(record.timestamp_ns, given.port, frame, claims)

    return (
        packet(record)
        for record in records
        if not record.is_out and (record.interface == given.port or not is_own_port)
    )


def _mtu_of(config: Config, port: str) -> int:
    """Of a port that the configuration has."""
    if port == "tun0":
        return config.tun0_mtu
    device = {"tap0": config.tap0, "tap1": config.tap1}.get(port)
    return config.vpn_mtu if device is None else device.mtu


def _held(pipe: BinaryIO, stack: ExitStack) -> BinaryIO:
    """The content of a pipe, in a file that can be read twice."""
    file: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the caller's stack closes it
    shutil.copyfileobj(pipe, file)
    file.seek(0)
    return file
