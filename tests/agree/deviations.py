"""Where the kernel's masquerade and ours are known to differ: the whole list, each with its row and its reason.

Every entry has a story that shows it, and that fails once both do the same. Nothing else may differ: the random packets
are compared against this list.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import ICMP, IP, UDP, IPOption, fragment
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tests.agree.pair import Exchange, Frames, packet_of
from tests.conformance.harness import ADDRESS_L, A, B, E, F, scapy_sum
from tests.conformance.packets import echo, error, tcp, udp

CLIENT, SERVER = (A, 5000), (E, 80)
Step = tuple[str, ScapyPacket]
Story = Callable[[str], list[Step]]
"""Our outside address to the packets of a story, in order: "in" from the LAN, "out" from the world."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """`kernel` and `ours`: what comes out of each for the last packet of the story, as `outcome` words it. `concerns`:
    whether it may be the reason of a difference in the treatment of some packet. `narrow`: shown with that egress."""

    row: str
    name: str
    reason: str
    kernel: str
    ours: str
    story: Story
    concerns: Callable[[str, IP], bool]
    narrow: bool = False


def outcome(egress: str, frames: Frames) -> str:
    """The packet that came out, in a few words: its destination, and its protocol or ICMP message."""
    words = []
    for port, frame in frames:
        raw = packet_of(port, frame)
        payload = raw[(raw[0] & 15) * 4 :]
        kind = {6: "tcp", 17: "udp"}.get(raw[9], str(raw[9]))
        if raw[9] == 1 and not struct.unpack_from("!H", raw, 6)[0] & 0x1FFF:
            kind = f"{payload[0]}/{payload[1]}"
        words.append(f"{kind} to the {'world' if port == egress else 'LAN'}")
    return ", ".join(dict.fromkeys(words)) or "silence"


def explained(both: Exchange, egress: str, x: str) -> Deviation | None:
    """The deviation that a difference comes from; None where none explains it."""
    raw = packet_of(both.port, both.sent)
    side = "world" if both.port == egress else "LAN"
    if len(raw) < 20:
        return None
    packet = IP(raw)
    found = (outcome(egress, both.kernel), outcome(egress, both.ours))
    for deviation in DEVIATIONS:
        fits = all(_fits(known, seen) for known, seen in zip((deviation.kernel, deviation.ours), found, strict=True))
        if fits and deviation.concerns(side, packet):
            return deviation
    return None


def _fits(known: str, seen: str) -> bool:
    """Whether an outcome is of the kind that was shown: silence, or something to the same side."""
    return (known == "silence") == (seen == "silence") and known.rpartition(" ")[2] == seen.rpartition(" ")[2]


# Which packets an entry is about


def _is(**wanted: Any) -> Callable[[str, IP], bool]:
    """Packets that come from the `side` and have the protocol `proto`."""

    def concerns(side: str, packet: IP) -> bool:
        return wanted.get("side", side) == side and wanted.get("proto", packet.proto) == packet.proto

    return concerns


def _is_icmp(*kinds: int, side: str | None = None) -> Callable[[str, IP], bool]:
    def concerns(where: str, packet: IP) -> bool:
        return (
            packet.proto == 1
            and packet.frag == 0
            and bytes(packet.payload)[:1] in map(_byte, kinds)
            and side in (None, where)
        )

    return concerns


def _byte(number: int) -> bytes:
    return bytes((number,))


def _ports(side: str, packet: IP) -> bool:
    return packet.proto in (6, 17) and 0 in struct.unpack("!HH", bytes(packet.payload)[:4].ljust(4, b"\1"))


def _has_option(*kinds: int) -> Callable[[str, IP], bool]:
    return lambda side, packet: any(kind in bytes(packet)[20 : packet.ihl * 4] for kind in kinds)


def _from(*starts: str) -> Callable[[str, IP], bool]:
    return lambda side, packet: packet.src.startswith(starts)


def _not_of_the_lan(side: str, packet: IP) -> bool:
    return side == "LAN" and not packet.src.startswith("192.168.200.")


def _to_our_names(side: str, packet: IP) -> bool:
    return side == "LAN" and packet.dst in ("192.168.1.2", "192.168.192.210")


def _in_parts(side: str, packet: IP) -> bool:
    return bool(packet.flags.MF or packet.frag)


# The stories


def syn(**fields: Any) -> ScapyPacket:
    """A's first segment."""
    return tcp(CLIENT, SERVER, "S", seq=100, **fields)


def established(x: str) -> list[Step]:
    """Three segments."""
    return [
        ("in", syn()),
        ("out", tcp(SERVER, (x, 5000), "SA", seq=900, ack=101)),
        ("in", tcp(CLIENT, SERVER, "A", seq=101, ack=901)),
    ]


def _bad_quote(x: str) -> list[Step]:
    quoted = bytearray(bytes(IP(src=x, dst=E, ttl=63) / UDP(sport=5000, dport=80) / b"data"))
    quoted[8] ^= 1
    return [("in", udp(CLIENT, SERVER)), ("out", error(E, x, 3, 3, bytes(quoted)))]


def _quoted(x: str) -> bytes:
    return bytes(IP(src=x, dst=E, ttl=63) / UDP(sport=5000, dport=80) / b"data")


def _odd_mss(x: str) -> list[Step]:
    return [("in", syn(options=[("NOP", None), ("MSS", 1460), ("NOP", None)]))]


def _cut(size: int, width: int) -> list[ScapyPacket]:
    return list(fragment(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=80) / bytes(size), width))


DEVIATIONS: tuple[Deviation, ...] = (
    # The mapping and the filter
    Deviation(
        "U1",
        "the kernel maps for each remote anew",
        "endpoint-independent mapping (RFC 4787): a port that is one host's is no other's, whoever the remote is",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", udp(CLIENT, SERVER, id=1)), ("in", udp((B, 5000), (F, 80), id=2))],
        lambda side, packet: False,
    ),
    Deviation(
        "U8",
        "the kernel lets in only the endpoint that was spoken to",
        "endpoint-independent filtering is our default; address-dependent by configuration",
        "silence",
        "udp to the LAN",
        lambda x: [("in", udp(CLIENT, SERVER)), ("out", udp((F, 9), (x, 5000)))],
        _is(side="world"),
    ),
    Deviation(
        "U8",
        "the kernel lets no error out about a packet of a stranger",
        "who may be let in may be answered with an error",
        "silence",
        "3/3 to the world",
        lambda x: [
            ("in", udp(CLIENT, SERVER)),
            ("in", error(A, F, 3, 3, bytes(IP(src=F, dst=A) / UDP(sport=9, dport=5000)))),
        ],
        _is_icmp(3, 11, 12, side="LAN"),
    ),
    Deviation(
        "U9",
        "the kernel has no hairpin",
        "an outside name is reached from inside too (RFC 4787 REQ-9)",
        "3/3 to the LAN",
        "udp to the LAN",
        lambda x: [("in", udp(CLIENT, SERVER)), ("in", udp((B, 6000), (x, 5000)))],
        _to_our_names,
    ),
    Deviation(
        "P12",
        "the kernel refuses what is for its outside address and open to nobody",
        "what finds no link is dropped in silence, from either side",
        "3/3 to the LAN",
        "silence",
        lambda x: [("in", udp(CLIENT, (x, 5000)))],
        _to_our_names,
    ),
    Deviation(
        "R8",
        "the kernel lets two hosts use one identification",
        "identifications of what may be fragmented are unique behind a NAT (RFC 7857 10)",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", udp(CLIENT, SERVER, id=7)), ("in", udp((B, 5001), SERVER, id=7))],
        lambda side, packet: False,
    ),
    # TCP
    Deviation(
        "R3a",
        "the kernel drops a reset from before the window",
        "ours passes it on and changes no timer for it: the host judges it",
        "silence",
        "tcp to the LAN",
        lambda x: [*established(x), ("out", tcp(SERVER, (x, 5000), "R", seq=500))],
        _is(proto=6),
    ),
    Deviation(
        "T2",
        "the kernel drops segments whose flags fit no state of the connection",
        "a NAT carries all valid sequences and leaves the judgement to the ends",
        "silence",
        "tcp to the world",
        lambda x: [("in", syn()), ("in", tcp(CLIENT, SERVER, "A", seq=101, ack=1))],
        _is(proto=6),
    ),
    Deviation(
        "T2",
        "the kernel drops combinations of flags that nobody sends",
        "likewise",
        "silence",
        "tcp to the world",
        lambda x: [*established(x), ("in", tcp(CLIENT, SERVER, "SF", seq=101, ack=901))],
        _is(proto=6),
    ),
    # ICMP
    Deviation(
        "G16",
        "the kernel passes a source quench on",
        "it is ignored (RFC 6633)",
        "4/0 to the LAN",
        "silence",
        lambda x: [("in", udp(CLIENT, SERVER)), ("out", error(E, x, 4, 0, _quoted(x)))],
        _is_icmp(4),
    ),
    Deviation(
        "P1",
        "the kernel makes the checksum of an ICMP message of zeros zero",
        "all ones is the only checksum that such a message's receiver finds right (RFC 1624)",
        "0/0 to the LAN",
        "0/0 to the LAN",
        lambda x: [("in", echo((A, 0), E, data=b"", seq=0)), ("out", echo((E, 0), x, 0, bytes(8), seq=0))],
        lambda side, packet: packet.proto == 1 and not any(bytes(packet.payload)[:2] + bytes(packet.payload)[4:]),
    ),
    Deviation(
        "G9",
        "the kernel's errors keep the type of service of what they are about",
        "ours have precedence 6 and nothing else (RFC 1812 4.3.2.5)",
        "11/0 to the LAN",
        "11/0 to the LAN",
        lambda x: [("in", udp(CLIENT, SERVER, ttl=1, tos=0x10))],
        lambda side, packet: bool(packet.tos & 0x1E),
    ),
    Deviation(
        "I1",
        "the kernel drops an answer from inside that nobody outside has asked for",
        "an identifier that A has towards the world is A's, whichever query or answer carries it",
        "silence",
        "0/0 to the world",
        lambda x: [("in", echo((A, 77), E)), ("in", echo((A, 77), E, 0))],
        _is_icmp(0, 14, 16, 18, side="LAN"),
    ),
    Deviation(
        "G20",
        "the kernel answers timestamp requests",
        "no other query than echo is answered",
        "14/0 to the LAN",
        "silence",
        lambda x: [("in", IP(src=A, dst=ADDRESS_L) / ICMP(type=13, id=1, ts_ori=1, ts_rx=0, ts_tx=0))],
        _is_icmp(13),
    ),
    Deviation(
        "G13",
        "the kernel speaks IGMP",
        "it is a protocol like any that nobody serves here",
        "silence",
        "3/2 to the LAN",
        lambda x: [("in", IP(src=A, dst=ADDRESS_L, proto=2) / Raw(bytes(8)))],
        _is(proto=2, side="LAN"),
    ),
    # Addresses
    Deviation(
        "G21",
        "the kernel forwards from 0.0.0.0/8 but 0.0.0.0 itself",
        "a martian (RFC 6890)",
        "udp to the world",
        "silence",
        lambda x: [("in", udp(("0.1.2.3", 5000), SERVER))],
        _from("0."),
    ),
    Deviation(
        "G21",
        "the kernel forwards from class E",
        "a martian (RFC 1812 5.3.7)",
        "udp to the world",
        "silence",
        lambda x: [("in", udp(("240.0.0.1", 5000), SERVER))],
        _from("24", "25"),
    ),
    Deviation(
        "G22",
        "the kernel calls 0.0.0.0/8 and class E unreachable where no route names them",
        "martian destinations are dropped in silence (RFC 1812 5.3.7)",
        "3/0 to the LAN",
        "silence",
        lambda x: [("in", udp(CLIENT, ("0.1.2.3", 80)))],
        lambda side, packet: side == "LAN" and packet.dst.startswith(("0.", "24", "25", "169.254.")),
    ),
    Deviation(
        "P13",
        "the kernel forwards from any source",
        "without rp_filter; ours takes from the LAN what lives there (RFC 2827)",
        "udp to the world",
        "silence",
        lambda x: [("in", udp(("10.1.1.1", 5000), SERVER))],
        _not_of_the_lan,
    ),
    # Mechanics
    Deviation(
        "P11",
        "the kernel forwards port 0",
        "decided: port 0 is dropped",
        "udp to the world",
        "silence",
        lambda x: [("in", udp((A, 5000), (E, 0)))],
        _ports,
    ),
    Deviation(
        "P9",
        "the kernel leaves DCCP's checksum as it was",
        "it covers the addresses: ours follows them, and the receiver takes the packet",
        "33 to the world",
        "33 to the world",
        lambda x: [("in", IP(src=A, dst=E, proto=33) / Raw(struct.pack("!HHBBHI", 5000, 80, 3, 0, 0x1234, 0)))],
        _is(proto=33),
    ),
    Deviation(
        "G25",
        "the kernel fills in the routes that are recorded",
        "options pass as they are (RFC 7126 lets both)",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", udp(CLIENT, SERVER, options=[IPOption(b"\x07\x07\x04\0\0\0\0\0")]))],
        _has_option(7),
    ),
    Deviation(
        "G25",
        "the kernel counts where no timestamp fits any more",
        "likewise",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", udp(CLIENT, SERVER, options=[IPOption(b"\x44\x08\x09\0\0\0\0\0")]))],
        _has_option(0x44),
    ),
    Deviation(
        "G25",
        "the kernel clears what stands behind the end of the options",
        "options pass as they are",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", udp(CLIENT, SERVER, options=[IPOption(b"\x00\x83\x03\x04")]))],
        _has_option(0),
    ),
    Deviation(
        "G29",
        "nftables sums an MSS that begins at an odd place wrong",
        "ours is right: every receiver would drop the kernel's segment",
        "tcp to the world",
        "tcp to the world",
        _odd_mss,
        lambda side, packet: False,
        narrow=True,
    ),
    # Fragments
    Deviation(
        "F1",
        "the kernel holds every fragment until its datagram is whole",
        "ours passes on what follows a first fragment at once, and holds less",
        "silence",
        "udp to the world",
        lambda x: [("in", _cut(992, 496)[0])],
        _in_parts,
    ),
    Deviation(
        "G27",
        "the kernel cuts a fragment that is too big out of the whole datagram anew",
        "ours cuts each fragment by itself, as a router without a NAT does",
        "udp to the world",
        "udp to the world",
        lambda x: [("in", part) for part in _cut(2900, 1480)],
        lambda side, packet: False,
        narrow=True,
    ),
)


def sums_right(frames: Frames) -> bool:
    """Whether the TCP or ICMP checksum of the one frame is right."""
    ((port, frame),) = frames
    raw = packet_of(port, frame)
    pseudo = raw[12:20] + bytes((0, raw[9])) + struct.pack("!H", len(raw) - 20) if raw[9] != 1 else b""
    return scapy_sum(pseudo + raw[20:]) == 0
