"""Random conversations for both NATs: valid ones, with broken packets, errors and fragments strewn in.

A packet is made when its turn comes, so that it can answer or quote what came out before. Nothing here depends on
anything but the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, fragment
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tests.conformance.harness import A, B, scapy_sum

REMOTES = [f"203.0.113.{number}" for number in range(1, 9)]
ROUTERS = ["198.51.100.1", "198.51.100.77"]
OPTIONS = [b"", b"", b"", b"\x94\x04\0\0", b"\1\1\1\0", b"\x5e\x04\xab\xcd\xde\x04\1\2"]
TCP_OPTIONS = [
    [],
    [("Timestamp", (1, 2))],
    [("NOP", None), ("NOP", None), ("SAck", (3, 4))],
    [(253, b"\x12\x34ab"), ("NOP", None)],
]

Piece = tuple[str, list[bytes]]
"""A side ("in" from the LAN, "out" from the world), and a packet, or the fragments of one in their order of arrival."""


@dataclass(slots=True)
class Chance:
    """The dice, and the counter of identifications: one space for both hosts, or R8 would change them."""

    dice: random.Random
    x: str
    next_id: int = 1
    sizes: tuple[int, ...] = (0, 1, 2, 3, 17, 100, 536, 1300)
    last: dict[str, bytes] = field(default_factory=dict)

    def head(self, source: str, destination: str, **fixed: object) -> IP:
        """A random IP header."""
        self.next_id = (self.next_id + 1) & 0x3FFF
        options = self.dice.choice(OPTIONS)
        fields: dict[str, object] = {
            "id": self.next_id | (0x4000 if self.x in (source, destination) else 0),
            "tos": self.dice.choice((0, 0, 1, 2, 3, 0x10, 0xB8, 0xFF)),
            "ttl": self.dice.choice((2, 3, 63, 64, 128, 255)),
            "flags": self.dice.choice((0, 0, "DF")),
            "options": [IPOption(options)] if options else [],
            **fixed,
        }
        return IP(src=source, dst=destination, **fields)

    def data(self) -> bytes:
        """A random payload."""
        return self.dice.randbytes(self.dice.choice(self.sizes))


def udp_talk(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """Datagrams there and back, some without a checksum, some in fragments."""
    remote, far = c.dice.choice(REMOTES), c.dice.randrange(1, 65_536)
    yield "in", [bytes(c.head(host, remote) / UDP(sport=port, dport=far) / c.data())]
    for _ in range(c.dice.randrange(2, 7)):
        sum_field = {} if c.dice.random() < 0.7 else {"chksum": 0}
        if c.dice.random() < 0.5:
            packet = c.head(host, remote) / UDP(sport=port, dport=far, **sum_field) / c.data()
            yield "in", in_pieces(c, packet)
        else:
            packet = c.head(remote, c.x) / UDP(sport=far, dport=port, **sum_field) / c.data()
            yield "out", in_pieces(c, packet)


def in_pieces(c: Chance, packet: ScapyPacket) -> list[bytes]:
    """The packet, or now and then its fragments in any order."""
    if c.dice.random() < 0.75 or packet.flags.DF or packet.options:
        return [bytes(packet)]
    payload = bytes(packet)[20:]
    width = c.dice.choice((32, 96, 400))
    parts = [bytes(part) for part in fragment(IP(bytes(packet)), width)] if len(payload) > width else [bytes(packet)]
    c.dice.shuffle(parts)
    return parts


def tcp_talk(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """A connection from SYN to the last acknowledgement, opened and closed in any of the proper ways."""
    remote, far = c.dice.choice(REMOTES), c.dice.randrange(1, 65_536)
    next_in, next_out = c.dice.getrandbits(32), c.dice.getrandbits(32)

    def segment(side: str, flags: str, data: bytes = b"") -> Piece:
        nonlocal next_in, next_out
        mine, other = (next_in, next_out) if side == "in" else (next_out, next_in)
        ends = {"sport": port, "dport": far} if side == "in" else {"sport": far, "dport": port}
        layer = TCP(**ends, flags=flags, seq=mine, ack=other if "A" in flags else 0, window=c.dice.randrange(1, 65_536))
        layer.options = c.dice.choice(TCP_OPTIONS) if "S" not in flags else [("MSS", 1300), ("SAckOK", b"")]
        step = len(data) + ("S" in flags) + ("F" in flags)
        if side == "in":
            next_in = (next_in + step) % (1 << 32)
        else:
            next_out = (next_out + step) % (1 << 32)
        head = c.head(host, remote) if side == "in" else c.head(remote, c.x)
        return side, [bytes(head / layer / data)]

    yield segment("in", c.dice.choice(("S", "SEC")))
    if c.dice.random() < 0.15:
        next_out = (next_out + 0) % (1 << 32)
        side, packets = segment("out", "RA")
        yield side, packets
        return
    yield segment("out", "SA")
    yield segment("in", "A")
    for _ in range(c.dice.randrange(1, 6)):
        side = c.dice.choice(("in", "out"))
        yield segment(side, c.dice.choice(("A", "PA", "UPA")), c.data())
        yield segment("out" if side == "in" else "in", "A")
    first, second = c.dice.choice((("in", "out"), ("out", "in")))
    yield segment(first, "FA")
    yield segment(second, "A")
    yield segment(second, "FA")
    yield segment(first, "A")


def echo_talk(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """Pings and their answers, some in fragments; never of zeros alone (P1)."""
    remote = c.dice.choice(REMOTES)
    for number in range(1, c.dice.randrange(2, 6)):
        data = c.data()
        yield "in", in_pieces(c, c.head(host, remote) / ICMP(id=port, seq=number) / data)
        if c.dice.random() < 0.8:
            yield "out", in_pieces(c, c.head(remote, c.x) / ICMP(type=0, id=port, seq=number) / data)


def plain_talk(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """Another protocol, to a remote of its own: the address alone tells whose it is."""
    protocol, remote = c.dice.choice((4, 50, 51, 200, 253)), f"203.0.114.{port % 250 + 1}"
    for _ in range(c.dice.randrange(1, 5)):
        yield "in", [bytes(c.head(host, remote, proto=protocol) / Raw(c.data()))]
        yield "out", [bytes(c.head(remote, c.x, proto=protocol) / Raw(c.data()))]


def errors(c: Chance) -> Iterator[Piece]:
    """ICMP errors about what came out last, either way."""
    for _ in range(c.dice.randrange(1, 4)):
        side = c.dice.choice(("in", "out"))
        quoted = c.last.get(side)
        if quoted is None or quoted[9] not in (6, 17, 50) or quoted[6] & 0x3F or quoted[7]:
            continue
        if len(quoted) < (quoted[0] & 15) * 4 + 8:
            continue
        kind, code = c.dice.choice(((3, 0), (3, 1), (3, 3), (3, 13), (11, 0), (12, 0)))
        kept = quoted[: c.dice.choice(((quoted[0] & 15) * 4 + 8, 200, 548))]
        message = bytes((kind, code, 0, 0)) + bytes(4) + kept
        message = message[:2] + scapy_sum(message).to_bytes(2, "big") + message[4:]
        address = ".".join(map(str, quoted[12:16]))
        if side == "out":  # what went out comes back from a router of the world
            yield "out", [bytes(c.head(c.dice.choice((ROUTERS[0], ROUTERS[1])), c.x, proto=1) / Raw(message))]
        else:
            inside = ".".join(map(str, quoted[16:20]))
            yield "in", [bytes(c.head(inside, address, proto=1) / Raw(message))]


def expiring(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """Packets that come on their last hop: each is answered, or each is silent."""
    remote = c.dice.choice(REMOTES)
    layers = (UDP(sport=port, dport=33434), TCP(sport=port, dport=80, flags="S"), ICMP(id=port, seq=1))
    for layer in c.dice.sample(layers, 2):
        yield (
            "in",
            [
                bytes(
                    c.head(host, remote, ttl=c.dice.choice((0, 1)), tos=c.dice.choice((0, 0xC1)), options=[])
                    / layer
                    / b"probe"
                )
            ],
        )


def broken(c: Chance, host: str, port: int) -> Iterator[Piece]:
    """A packet with some bytes changed, its header checksum right again or not, sometimes cut short."""
    remote = c.dice.choice(REMOTES)
    layers = (UDP(sport=port, dport=53), TCP(sport=port, dport=80, flags="S"), ICMP(id=port, seq=1))
    for _ in range(c.dice.randrange(1, 4)):
        raw = bytearray(bytes(c.head(host, remote) / c.dice.choice(layers) / c.data()))
        for _ in range(c.dice.randrange(1, 3)):
            at = c.dice.choice((0, 1, 2, 3, 6, 7, 8, 9, 20, 21, 22, 23, 24, 25, 32, 33, c.dice.randrange(len(raw))))
            raw[at % len(raw)] = c.dice.choice((0, 1, 0x45, 0x46, 0x4F, 0x7F, 0x80, 0xFF, c.dice.randrange(256)))
        if c.dice.random() < 0.2:
            del raw[c.dice.randrange(len(raw)) :]
        if c.dice.random() < 0.85 and len(raw) >= 20:
            raw[10:12] = b"\0\0"
            raw[10:12] = scapy_sum(bytes(raw[: max((raw[0] & 15) * 4, 20)])).to_bytes(2, "big")
        yield "in", [bytes(raw)]


def strangers(c: Chance) -> Iterator[Piece]:
    """Packets that nobody asked for, to ports that nobody has."""
    remote = c.dice.choice(REMOTES)
    for port in c.dice.sample(range(60_000, 64_000), 2):
        layers = (UDP(sport=53, dport=port), TCP(sport=80, dport=port, flags=c.dice.choice(("S", "SA", "A", "R"))))
        yield "out", [bytes(c.head(remote, c.x) / c.dice.choice(layers) / c.data())]


def mixed(c: Chance) -> Iterator[Piece]:
    """Several of these at once, in a random order of packets. A's ports are even, B's odd, and nobody's twice."""
    ports = iter(c.dice.sample(range(1024, 30_000), 12))
    running = []
    for talk in c.dice.choices((udp_talk, tcp_talk, echo_talk, plain_talk, expiring, broken), k=c.dice.randrange(3, 7)):
        host = c.dice.choice((A, B))
        running.append(talk(c, host, next(ports) * 2 + (host == B)))
    running += [errors(c), strangers(c)]
    while running:
        talk = c.dice.choice(running)
        piece = next(talk, None)
        if piece is None:
            running.remove(talk)
        else:
            yield piece
