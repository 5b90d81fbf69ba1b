"""A LAN, an Internet and a tunnel around one gateway, under a virtual clock: who talks when, and what comes back.

`SoakWorld` carries frames between the gateway and everybody else, lets timers fire, and counts all that passes. Scripts
tell the story: generators that send frames and yield the seconds until they go on. The far side needs no script: it
reflects each packet that leaves (`_far_answers`), since the sums of TCP and UDP stay when both ends change places.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.daemon.implementation import open_table
from bridge.ports.base import PortKind, ReceivedFrame
from bridge.ports.bursts import PlainBursts
from bridge.walk.effects import Effect, Send
from bridge.walk.forwarding.peer_prefixes import Announced
from bridge.walk.gateway import Gateway
from icmp import errors
from trials.fuzz.targets.flow import FlowPair, packet
from wire import ipv4
from wire.drop import Drop
from wire.ethernet import ARP_TYPE, BROADCAST, IPV4_TYPE, NO_MAC
from wire.gso import GsoHeader
from wire.ipv4 import ICMP, TCP
from wire.tcp import ACK, FIN, RST, SYN
from wire.units import address_int, seconds_ns

Script = Generator[float, None, None]

CONFIGURATION = """
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
fallback = "jp"
[peer.jp]
allowed_ips = ["0.0.0.0/0", "198.18.0.0/16"]
[offload]
prefixes = ["offload.txt"]
[alias]
max_links = 1500
max_links_per_host = 400
unsolicited_syn = "unreachable"
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.5:80"
"""
OFFLOADED, TUNNELLED, BY_JAPAN = address_int("203.0.113.0"), address_int("8.8.8.0"), address_int("198.18.0.0")
LAN, GATEWAY, SERVER = (address_int(f"192.168.200.{last}") for last in (0, 2, 5))
TAP1, ROUTER = address_int("192.168.1.2"), address_int("192.168.1.1")
HOST, ALIAS = address_int("192.168.192.211"), address_int("192.168.192.210")
OUR_MACS = {"tap0": bytes.fromhex("02000000c802"), "tap1": bytes.fromhex("020000000102")}
SERVER_MAC = bytes.fromhex("02bb00000005")
_LINK_BYTES = 14
_BURST = 64
# The last byte of a far address says what its owner is like.
SILENT, REFUSES, UNREACHABLE = 66, 77, 88


class _SoakPort:
    """A device of the gateway: frames wait to be read, what is written goes to the world."""

    def __init__(self, name: str, kind: PortKind, written: Callable[[str, bytes], None]) -> None:
        self.name, self.kind, self.link_bytes = name, kind, _LINK_BYTES if kind == "tap" else 0
        self.waiting: deque[bytes] = deque()
        self._written = written

    def fileno(self) -> int:
        return -1

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        return [(self.waiting.popleft(), None) for _ in range(min(limit, len(self.waiting)))]

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        self._written(self.name, bytes(frame))
        return None

    def close(self) -> None:
        pass


class SoakWorld:
    """`now` in ns. `frames`: in and out by (port, `in` or `out`); `repeated` of them never saw the walk. `slack_s`: the
    loop is up to so late with a timer, where nothing else wakes it."""

    def __init__(self, folder: Path, seed: int, slack_s: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.path = folder / "gateway.toml"
        self.path.write_text(CONFIGURATION)
        self.list_prefixes(())
        config = load(self.path, "replay")
        self.gateway = Gateway(
            gateway_settings(config), routes_from(config), random.Random(seed), table=open_table(self.rng, 8192)
        )
        self.now = seconds_ns(1_000_000)
        self.frames: Counter[tuple[str, str]] = Counter()
        self.stations: dict[int, bytes] = {SERVER: SERVER_MAC}
        self.router_mac: bytes | None = bytes.fromhex("02aa00000001")
        self._slack_ns = seconds_ns(slack_s)
        self._scripts: list[tuple[int, int, Script]] = []
        self._ticket = 0
        self._pending: deque[Callable[[], None]] = deque()
        fast = self.gateway.fast
        self._bursts = PlainBursts(fast.table)  # in Python around either table: frames come one by one here
        fast.bursts.append(self._bursts)
        self._wires = {
            name: _SoakPort(name, "tap" if name in OUR_MACS else "tun", self._left)
            for name in ("tap0", "tap1", "tun0", "vpn", "vpn:jp")
        }
        for name, wire in self._wires.items():
            self._bursts.attach(fast.number(name), wire)

    # Time

    def begin(self, script: Script, after_s: float = 0.0) -> None:
        """Let a script run, from `after_s` on."""
        self._ticket += 1
        heapq.heappush(self._scripts, (self.now + seconds_ns(after_s), self._ticket, script))

    def run_until(self, end: int) -> None:
        """Let the clock run on: scripts go on and timers fire, in order of time."""
        while True:
            due = self._scripts[0][0] if self._scripts else end
            deadline = self.gateway.next_deadline()
            if deadline is not None and max(deadline + self._slack_ns, self.now) <= min(due, end):
                self.now = max(deadline + self._slack_ns, self.now)
                self._tick()
                continue
            if due > end or not self._scripts:
                break
            self.now = max(self.now, due)
            if deadline is not None and deadline <= self.now:
                self._tick()
            _, _, script = heapq.heappop(self._scripts)
            pause_s = next(script, None)
            self._settle()
            if pause_s is not None:
                self.begin(script, pause_s)
        self.now = end

    def _tick(self) -> None:
        self.carry_out(self.gateway.tick(self.now))
        self._settle()
        following = self.gateway.next_deadline()
        assert following is None or following > self.now, "a timer does not move on"

    @property
    def idle(self) -> bool:
        """No script is under way."""
        return not self._scripts

    # Frames

    def send(self, port: str, data: bytes, mac: bytes | None = None) -> None:
        """An IP packet comes in by a port; `mac` is its sender's on a tap."""
        if port in OUR_MACS:
            data = OUR_MACS[port] + (mac or self._mac_behind(port, data)) + IPV4_TYPE + data
        self.frame(port, data)

    def _mac_behind(self, port: str, data: bytes) -> bytes:
        if port == "tap1":
            return self.router_mac or bytes.fromhex("02aa000000ff")
        return self.stations.get(int.from_bytes(data[12:16], "big"), bytes.fromhex("02cc000000ff"))

    def frame(self, port: str, frame: bytes) -> None:
        """Any frame at all."""
        self.frames[port.partition(":")[0], "in"] += 1
        self._wires[port].waiting.append(frame)
        gateway = self.gateway
        walked, _ = self._bursts.take(gateway.fast.number(port), _BURST, self.now)
        for data, _ in walked:
            self.carry_out(gateway.receive(port, data, self.now))

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Send the frames of the gateway's effects."""
        for effect in effects:
            if isinstance(effect, Send):
                self._left(effect.port, bytes(effect.frame))

    def _left(self, port: str, frame: bytes) -> None:
        """The others hear of it once the gateway is done with what it does."""
        self.frames[port.partition(":")[0], "out"] += 1
        if port in OUR_MACS and frame[12:14] == ARP_TYPE:
            self._pending.append(lambda: self._arp_answer(port, frame))
        elif port in ("tap1", "vpn", "vpn:jp"):
            data = frame[_LINK_BYTES:] if port in OUR_MACS else frame
            for answer in self._far_answers(port, data):
                self.begin(answer, self.rng.uniform(0.005, 0.2))
        elif port == "tap0" and frame[30:34] == SERVER.to_bytes(4, "big") and frame[23] == TCP:
            self.begin(self._served(frame[_LINK_BYTES:]), 0.001)

    def _settle(self) -> None:
        while self._pending:
            self._pending.popleft()()

    def _arp_answer(self, port: str, frame: bytes) -> None:
        """The owner of the address answers a request."""
        asked = int.from_bytes(frame[38:42], "big")
        mac = self.router_mac if port == "tap1" and asked == ROUTER else self.stations.get(asked)
        if frame[20:22] == b"\0\1" and mac is not None and frame[28:32] != bytes(4):
            self.frame(port, arp(2, mac, asked, frame[22:28], int.from_bytes(frame[28:32], "big")))

    # The far side

    def _far_answers(self, port: str, data: bytes) -> Iterable[Script]:
        remote, protocol, rng = data[19], data[9], self.rng
        if remote == SILENT or rng.random() < 0.02:
            return
        if remote == UNREACHABLE and protocol != ICMP:
            source = int.from_bytes(data[16:20], "big") & 0xFFFFFF00 | 1
            message = errors.error(
                errors.UNREACHABLE,
                rng.choice((errors.HOST, errors.PORT)),
                data,
                source=source,
                destination=int.from_bytes(data[12:16], "big"),
                identification=rng.randrange(65536),
            )
            yield self._come(port, bytes(message))
            return
        is_later = int.from_bytes(data[6:8], "big") & 0x1FFF
        if protocol == TCP and not is_later:
            yield from self._far_tcp(port, data)
        elif protocol == ICMP and not is_later:
            if data[20] == 8:
                ends = *struct.unpack_from("!II", data, 12)[::-1], struct.unpack_from("!H", data, 24)[0], 0
                yield self._come(port, packet(ICMP, (ends[0], ends[2], ends[1], 0), data[28:]))
        else:
            yield self._come(port, reflected(data, is_later=bool(is_later)))

    def _far_tcp(self, port: str, data: bytes) -> Iterable[Script]:
        flags = data[33]
        ends = ends_back(data)
        if flags & RST:
            return
        if data[19] == REFUSES:
            yield self._come(port, packet(TCP, ends, tcp_flags=RST | ACK, ack=_next(data)))
        elif flags & SYN and not flags & ACK:
            yield self._come(port, packet(TCP, ends, tcp_flags=SYN | ACK, sequence=500, ack=_next(data)))
        elif flags & FIN:
            yield self._come(port, packet(TCP, ends, tcp_flags=FIN | ACK, sequence=501, ack=_next(data)))
        elif len(data) > 40:
            yield self._come(port, reflected(data))

    def _served(self, data: bytes) -> Script:
        """The server on the LAN answers its visitors, who come by a static forward."""
        flags = data[33]
        if flags & RST or not flags & (SYN | FIN):
            return
        answer = flags & (SYN | FIN) | ACK
        self.send("tap0", packet(TCP, ends_back(data), tcp_flags=answer, sequence=900, ack=_next(data)))
        yield from ()

    def _come(self, port: str, data: bytes) -> Script:
        self.send(port, data)
        yield from ()

    # The operator

    def list_prefixes(self, more: Iterable[str]) -> None:
        """Write the offload list: what is always in it, and `more`."""
        (self.path.parent / "offload.txt").write_text("\n".join(("203.0.113.0/24", *more)) + "\n")

    def reload(self, configuration: str = CONFIGURATION) -> None:
        """Take the files as they are now."""
        self.path.write_text(configuration)
        config = load(self.path, "replay")
        self.carry_out(self.gateway.reconfigure(gateway_settings(config), routes_from(config), self.now))

    def announce(self, announced: Announced) -> None:
        """Peers announce prefixes."""
        self.gateway.announce(announced)


def arp(opcode: int, mac: bytes, address: int, target_mac: bytes, target: int) -> bytes:
    """A whole ARP frame, padded; a request is broadcast."""
    head = (BROADCAST if opcode == 1 else target_mac) + mac + ARP_TYPE
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, opcode) + mac + address.to_bytes(4, "big")
    body += (NO_MAC if opcode == 1 else target_mac) + target.to_bytes(4, "big")
    return (head + body).ljust(60, b"\0")


def ends_back(data: bytes) -> FlowPair:
    """The ends of an answer to a packet with ports."""
    source, destination, source_port, destination_port = struct.unpack_from("!IIHH", data, 12)
    return destination, destination_port, source, source_port


def reflected(data: bytes, *, is_later: bool = False) -> bytes:
    """The same packet from its destination to its source; its checksums are right as they are."""
    ports = b"" if is_later else data[22:24] + data[20:22]
    return data[:12] + data[16:20] + data[12:16] + ports + data[20 + len(ports) :]


def _next(data: bytes) -> int:
    """The number that acknowledges a segment."""
    sequence = struct.unpack_from("!I", data, 24)[0]
    return int(sequence + len(data) - 40 + bool(data[33] & (SYN | FIN))) & 0xFFFFFFFF


def fragments(data: bytes, size_bytes: int) -> list[bytes]:
    """A packet in fragments with `size_bytes` of payload."""
    parsed = ipv4.parse(data)
    assert isinstance(parsed, ipv4.Packet)
    return [bytes(piece.data) for piece in ipv4.fragments_of(parsed, size_bytes + 20)]
