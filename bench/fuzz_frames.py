"""Mutated frames into every port of a gateway, with what must hold checked after each.

Seeds are packets that this file makes, and captures where a folder is given.

What must hold: no exception leaves the walk; every frame out parses, carries right checksums and no padding; nothing
leaves by the port it came in by but LAN traffic; nothing of the LAN is seen un-aliased on tap1; the stores stay within
their bounds; the clock of timers never runs backwards.
"""

from __future__ import annotations

import random
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.hostile import Broken, Failure, mutated
from bridge import balance
from bridge.config import load
from bridge.effects import Send
from bridge.gateway import Gateway
from bridge.routing import routes_from
from wire import ipv4, pcap
from wire.checksum import checksum, ones_sum, pseudo_header_sum
from wire.drop import Drop
from wire.ipv4 import Packet
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
PORTS = ("tap0", "tap1", "tun0", "vpn")
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
LAN = address_int("192.168.200.0")


def gateway_of(folder: Path, seed: int) -> Gateway:
    """A gateway with every port, small bounds and a static forward."""
    (folder / "offload.txt").write_text("203.0.113.0/24\n")
    path = folder / "gateway.toml"
    path.write_text(CONFIGURATION)
    config = load(path, "replay")
    return Gateway(config, routes_from(config), random.Random(seed))


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


def inputs(rng: random.Random, seeds: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """(port, frame) without end."""
    while True:
        raw = rng.choice(seeds) if seeds and rng.random() < 0.2 else packet(rng)
        raw = mutated(raw, rng)
        if rng.random() < 0.7:
            raw = repaired(raw)
        port = rng.choice(PORTS)
        if port in MACS:
            macs = MACS[port] if rng.random() < 0.95 else rng.randbytes(12)
            ethertype = b"\x08\x00" if rng.random() < 0.97 else rng.choice((b"\x08\x06", b"\x86\xdd", rng.randbytes(2)))
            raw = macs + ethertype + raw
            if rng.random() < 0.03:
                raw = mutated(raw, rng)
        yield port, raw


def check(gateway: Gateway, came_by: str | None, send: Send) -> None:
    """Every rule about one frame out; `Failure` names the broken one."""
    is_tap = send.port in MACS
    raw = bytes(send.frame[14:] if is_tap else send.frame)
    if is_tap and send.frame[12:14] == b"\x08\x06":
        return
    read = ipv4.parse(raw)
    if isinstance(read, Drop):
        raise Failure(f"out on {send.port}: {read}")
    if len(read.data) != len(raw):
        raise Failure("padding left with the packet")
    if read.ttl == 0:
        raise Failure("TTL zero left")
    if send.port in ("tap1", "vpn") and read.source & 0xFFFFFF00 == LAN:
        raise Failure(f"a LAN address is seen on {send.port}")
    ours = {itf.address for itf in gateway.interfaces.values()}
    if came_by == send.port and came_by != "tap0" and read.source not in ours:
        raise Failure(f"reflected on {came_by}")


def check_transport(read: Packet) -> bool:
    """True where the transport checksum of a whole packet is right (or absent)."""
    body = bytes(read.data[read.header_bytes :])
    if read.protocol == ipv4.ICMP:
        return ones_sum(body) == 0xFFFF
    if read.protocol == ipv4.UDP:
        if body[6:8] == b"\0\0":
            return True
        body = body[: int.from_bytes(body[4:6], "big")]
    pseudo = pseudo_header_sum(read.source, read.destination, read.protocol, len(body))
    return ones_sum(body, pseudo) == 0xFFFF


def check_checksum_kept(came: bytes, sends: list[Send]) -> None:
    """A packet with a right transport checksum leaves with a right one (a wrong one stays wrong: RFC 1624)."""
    received = ipv4.parse(came)
    if isinstance(received, Drop) or received.is_fragment or received.protocol not in (1, 6, 17):
        return
    if ipv4.read_transport(received) is not None or not check_transport(received):
        return
    for send in sends:
        raw = bytes(send.frame[14:] if send.port in MACS else send.frame)
        if send.port in MACS and send.frame[12:14] == b"\x08\x06":
            continue
        read = ipv4.parse(raw)
        if (
            isinstance(read, Packet)
            and not read.is_fragment
            and read.protocol in (1, 6, 17)
            and not check_transport(read)
        ):
            raise Failure(f"out on {send.port}: a wrong transport checksum")


def run(seconds: float, seed: int, seeds: list[bytes], most: int = 1 << 62) -> int:
    """Feed inputs until the time is over, at most `most`; the number of inputs. `Broken` where something did."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    now = 0
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        gateway = gateway_of(Path(folder), seed)
        for port, frame in inputs(rng, seeds):
            number += 1
            now += rng.choice((1000, 1_000_000, SECOND_NS, SECOND_NS * 30)) if rng.random() < 0.05 else 1000
            try:
                while (due := gateway.next_deadline()) is not None and due <= now:
                    for effect in gateway.tick(due):
                        if isinstance(effect, Send):
                            check(gateway, None, effect)
                    following = gateway.next_deadline()
                    if following is not None and following <= due:
                        raise Failure("a timer does not move on")
                sends = [effect for effect in gateway.receive(port, frame, now) if isinstance(effect, Send)]
                for send in sends:
                    check(gateway, port, send)
                check_checksum_kept(frame[14:] if port in MACS else frame, sends)
                if number % 8 == 0:
                    balance.check(gateway)
                if number % 5000 == 0 and sum(1 for _ in gateway.aliases.links(now)) > 2001:
                    raise Failure("more links than max_links and the static forward")
            except Exception as error:  # whatever it is, the frame that did it is told
                raise Broken(f"input {number}, port {port}: {frame.hex()}") from error
            if number >= most or (number % 500 == 0 and time.monotonic() > end):
                return number
    return number


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
