"""Mutated frames into every port of a gateway, with what must hold checked after each.

Seeds are packets that this file makes, and captures where a folder is given. The gateways are those of `WORLDS`: a LAN
gateway whose tap1 is a tap, one whose tap1 is a tun, one that filters by address, and an exit node. Frames come with
and without virtio claims, super-frames among them.

Must hold: no exception leaves the walk, and the rules of `trials.fuzz.rules`.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import Config, read
from bridge.walk import balance
from bridge.walk.effects import Send
from bridge.walk.gateway import Gateway
from trials.fuzz.claims import claims_of
from trials.fuzz.hostile import Broken, Target, goes_on, mutated, scratch_folder
from trials.fuzz.rules import Hidden, Rules
from wire import ipv4, pcap
from wire.checksum import checksum, pseudo_header_sum
from wire.ethernet import ARP_TYPE, IPV4_TYPE
from wire.gso import GsoHeader
from wire.units import SECOND_NS, address_int

CONFIGURATION = """
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
[tap0.arp]
"192.168.200.10" = "02:aa:00:00:00:0a"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "02:aa:00:00:00:01"
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = ["offload.txt"]
[alias]
max_links = 2000
max_links_per_host = 500
unsolicited_syn = "unreachable"
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.10:80"
"""
MACS = {"tap0": bytes.fromhex("02000000c80202aa0000000a"), "tap1": bytes.fromhex("02000000010202aa00000001")}
ADDRESSES = [
    address_int(text)
    for text in (
        "192.168.200.10",
        "192.168.200.11",
        "192.168.200.2",
        "192.168.200.255",
        "192.168.1.2",
        "192.168.1.1",
        "192.168.192.211",
        "192.168.192.210",
        "203.0.113.5",
        "198.51.100.7",
        "10.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
    )
]
EXIT_NODE = """
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "02:aa:00:00:00:01"
[tun0]
address = "192.168.192.211/24"
[tunnel]
[peer.alice]
allowed_ips = ["192.168.200.0/24", "10.1.2.0/24"]
exit = true
[peer.bob]
allowed_ips = ["10.8.0.3/32", "192.168.200.11/32"]
[offload]
prefixes = ["offload.txt"]
[alias]
max_links = 300
max_links_per_host = 100
[[alias.forward]]
on = "tap1"
protocol = "udp"
outside_port = 8080
inside = "10.1.2.3:53"
"""
LAN = Hidden(address_int("192.168.200.0"), 0xFFFFFF00, frozenset({"tap1", "vpn"}))
NODES = '[peer.hk]\nallowed_ips = ["0.0.0.0/0"]\n[peer.de]\nallowed_ips = ["10.1.0.0/16", "198.51.100.0/24"]\n'


class FrameWorld(NamedTuple):
    """A configuration, the ports that frames come in by, and what nobody may see where."""

    name: str
    configuration: str
    ports: tuple[str, ...]
    hidden: tuple[Hidden, ...]


WORLDS = (
    FrameWorld("gateway", CONFIGURATION, ("tap0", "tap1", "tun0", "vpn"), (LAN,)),
    FrameWorld(
        "nodes",
        CONFIGURATION.replace('gateway = "192.168.1.1"', 'gateway = "192.168.1.1"\nkind = "tun"')
        .replace('[tap1.arp]\n"192.168.1.1" = "02:aa:00:00:00:01"\n', "")
        .replace('mac = "02:00:00:00:01:02"\n', "")
        + NODES,
        ("tap0", "tap1", "tun0", "vpn", "vpn:de"),
        (LAN,),
    ),
    FrameWorld(
        "strict",
        CONFIGURATION.replace("[alias]", '[alias]\nfiltering = "address-dependent"\nrefresh_inbound = true') + NODES,
        ("tap0", "tap1", "tun0", "vpn", "vpn:de"),
        (LAN,),
    ),
    FrameWorld("exit", EXIT_NODE, ("tap1", "tun0", "vpn:alice", "vpn:bob"), (LAN._replace(ports=frozenset({"tap1"})),)),
)


@cache
def configuration(text: str) -> Config:
    """A configuration with its list read; made once."""
    with scratch_folder() as folder:
        (Path(folder) / "offload.txt").write_text("203.0.113.0/24\n")
        return read(text, Path(folder) / "gateway.toml", "replay")


def gateway_of(text: str, seed: int) -> Gateway:
    """A gateway with small bounds."""
    config = configuration(text)
    return Gateway(gateway_settings(config), routes_from(config), random.Random(seed))


def packet(rng: random.Random) -> bytes:
    """A mostly well-formed IPv4 packet: the mutations come later."""
    protocol = rng.choice((1, 1, 6, 6, 6, 17, 17, 17, 2, 33, 47, 50, 132, 136, rng.randrange(256)))
    source, destination = rng.choice(ADDRESSES), rng.choice(ADDRESSES)
    payload = rng.randbytes(rng.choice((0, 1, 7, 8, 20, 60, 500, 1400)))
    ports = struct.pack("!HH", rng.choice((0, 53, 80, 5000, 5001, 8080, rng.randrange(65536))), rng.randrange(65536))
    if protocol == ipv4.TCP:
        flags = rng.choice((2, 18, 16, 17, 4, 20, 24, rng.randrange(256)))
        body = ports + struct.pack("!IIBBHHH", rng.getrandbits(32), rng.getrandbits(32), 5 << 4, flags, 1000, 0, 0)
        body += payload
        field = 16
    elif protocol == ipv4.UDP:
        body = ports + struct.pack("!HH", 8 + len(payload), 0) + payload
        field = 6
    elif protocol == ipv4.ICMP:
        kind = rng.choice((0, 8, 3, 11, 12, 5, 4, 13, rng.randrange(256)))
        quoted = packet(rng)[: rng.choice((28, 36, 100, 548))] if kind in ipv4.ICMP_ERRORS else payload
        body = struct.pack("!BBHHH", kind, rng.randrange(16), 0, rng.randrange(65536), 1) + quoted
        field = 2
    else:
        body, field = payload, 0
    if field:
        pseudo = 0 if protocol == ipv4.ICMP else pseudo_header_sum(source, destination, protocol, len(body))
        body = body[:field] + checksum(body, pseudo).to_bytes(2, "big") + body[field + 2 :]
    flags = rng.choice((0, 0, 0x4000, 0x4000, 0x2000, rng.randrange(0x4000)))
    head = ipv4.header(
        source,
        destination,
        protocol,
        len(body),
        ttl=rng.choice((0, 1, 2, 64, 255)),
        identification=rng.choice((0, 1, 2, rng.randrange(65536))),
        flags=flags,
    )
    return head + body


def repaired(data: bytes) -> bytes:
    """The IP header checksum put right, where there is a header."""
    if len(data) < 20:
        return data
    size = min(max((data[0] & 15) * 4, 20), len(data))
    head = data[:10] + b"\0\0" + data[12:size]
    return data[:10] + checksum(head).to_bytes(2, "big") + data[12:]


def arp_frame(rng: random.Random) -> bytes:
    """An ARP frame, mostly well-formed (RFC 826)."""
    hosts = rng.choice(ADDRESSES).to_bytes(4, "big"), rng.choice(ADDRESSES).to_bytes(4, "big")
    sender = rng.choice((b"\x02\xaa\0\0\0\x0a", b"\x02\xaa\0\0\0\x01", bytes(6), b"\xff" * 6, rng.randbytes(6)))
    kind = rng.choice((1, 1, 2, 2, 0, 3))
    return b"\0\1\x08\0\6\4" + kind.to_bytes(2, "big") + sender + hosts[0] + bytes(6) + hosts[1] + bytes(18)


class Feed:
    """Frames for the ports of a world, without end; `answer` makes some of them fit what has left."""

    def __init__(self, world: FrameWorld, rng: random.Random, seeds: Sequence[bytes]) -> None:
        self.world = world
        self.rng = rng
        self.seeds = seeds
        self.left: deque[tuple[str, bytes]] = deque(maxlen=32)

    def __next__(self) -> tuple[str, bytes, GsoHeader | None]:
        rng = self.rng
        port = rng.choice(self.world.ports)
        is_tap = port in MACS and not (port == "tap1" and self.world.name == "nodes")
        choice = rng.random()
        if choice < 0.25 and self.left:
            port, raw = rng.choice(self.left)
            raw = answer(raw, rng)
            is_tap = port in MACS and not (port == "tap1" and self.world.name == "nodes")
        elif choice < 0.4 and self.seeds:
            raw = rng.choice(self.seeds)
        else:
            raw = packet(rng)
        if rng.random() < 0.6:
            raw = mutated(raw, rng)
            if rng.random() < 0.7:
                raw = repaired(raw)
        claims = None
        if not port.startswith("vpn"):
            raw, claims = claims_of(raw, rng)
        if is_tap:
            macs = MACS[port] if rng.random() < 0.95 else rng.randbytes(12)
            kind = IPV4_TYPE
            if rng.random() < 0.05:
                kind = rng.choice((ARP_TYPE, ARP_TYPE, ARP_TYPE, b"\x86\xdd", rng.randbytes(2)))
            if kind == ARP_TYPE:
                raw, claims = arp_frame(rng), None
            raw = macs + kind + raw
            if rng.random() < 0.03:
                raw = mutated(raw, rng)
        return port, raw, claims

    def __iter__(self) -> Iterator[tuple[str, bytes, GsoHeader | None]]:
        return self


def answer(raw: bytes, rng: random.Random) -> bytes:
    """A possible answer of the far end to a packet that left: the reply, or an error that quotes it."""
    if len(raw) < 28 or raw[9] not in (ipv4.TCP, ipv4.UDP, ipv4.ICMP):
        return raw
    if rng.random() < 0.3:
        kind, code = rng.choice(((3, 0), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0), (4, 0), (5, 1)))
        body = (
            struct.pack("!BBHHH", kind, code, 0, 0, rng.choice((0, 68, 576, 1400, 1500)))
            + raw[: rng.choice((28, 40, 120))]
        )
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        source = rng.choice((int.from_bytes(raw[16:20], "big"), rng.choice(ADDRESSES)))
        return ipv4.header(source, int.from_bytes(raw[12:16], "big"), ipv4.ICMP, len(body)) + body
    data = bytearray(raw)
    data[12:16], data[16:20] = raw[16:20], raw[12:16]
    size = (raw[0] & 15) * 4
    if raw[9] == ipv4.ICMP:
        data[size] = {8: 0, 13: 14, 0: 8}.get(raw[size], raw[size])
        data[size + 2 : size + 4] = bytes(2)
        data[size + 2 : size + 4] = checksum(data[size:]).to_bytes(2, "big")
    else:
        data[size : size + 2], data[size + 2 : size + 4] = raw[size + 2 : size + 4], raw[size : size + 2]
    data[8] = 64
    return repaired(bytes(data))


def episode(rng: random.Random, most: int, seeds: Sequence[bytes] = ()) -> int:
    """One gateway, and hostile frames until the generator is spent."""
    world = rng.choice(WORLDS)
    gateway = gateway_of(world.configuration, rng.getrandbits(16))
    rules = Rules(gateway, world.hidden)
    feed = Feed(world, rng, seeds)
    now = SECOND_NS
    number = 0
    port, frame, claims = "", b"", None
    try:
        for send in gateway.start(now):
            if isinstance(send, Send):
                rules.send(None, send)
        while goes_on(rng, number, most):
            number += 1
            now += rng.choice((1000, 1_000_000, SECOND_NS, SECOND_NS * 30)) if rng.random() < 0.05 else 1000
            rules.tick_until(now)
            port, frame, claims = next(feed)
            sends = [effect for effect in gateway.receive(port, frame, now, claims) if isinstance(effect, Send)]
            rules.sends(port, frame, claims, sends)
            rules.clock(now)
            for send in sends:
                feed.left.append((send.port, rules.packet(send.port, send.frame)))
            if number % 8 == 0:
                balance.check(gateway)
            if number % 64 == 0:
                rules.idle_tick(now)
            if number % 1000 == 0:
                rules.stores(now)
        rules.stores(now)
    except Exception as error:  # whatever it is, the frame that did it is told
        raise Broken(f"world {world.name}, input {number}, port {port}: {frame.hex()} {claims}") from error
    return number


def target(seeds: Sequence[bytes] = ()) -> Target:
    """The target; `seeds`: IP packets of captures."""
    return Target("frames", lambda rng, most: episode(rng, most, seeds))


def captured(folder: Path) -> list[bytes]:
    """IP packets of the captures in a folder, as seeds."""
    found = []
    for path in sorted(folder.rglob("*.pcap*")):
        try:
            with path.open("rb") as file:
                found += [bytes(record.data[14:]) for record in pcap.read(file, path.name)]
        except pcap.CaptureError:
            continue
    return found
