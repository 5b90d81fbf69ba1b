"""Captures that others made, and some of our own, through every port of a gateway: nothing breaks, nothing is lost.

Of every frame: it is sent, answered, held or dropped for a counted reason; what leaves has right checksums unless it
came with wrong ones; and once all timers have run out, nothing of it is left in memory.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_LSRR,
    IPOption_Router_Alert,
    IPOption_RR,
    fragment,
)
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw
from scapy.utils import checksum, wrpcap

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.walk import balance
from bridge.walk.effects import Send
from bridge.walk.gateway import Gateway
from wire import pcap
from wire.units import SECOND_NS

A, HOST, REMOTE = "192.168.200.10", "192.168.192.211", "203.0.113.5"
OURS = {"tap0": "192.168.200.2", "tap1": "192.168.1.2", "vpn": "192.168.192.210"}
MACS = {"tap0": bytes.fromhex("02000000c802"), "tap1": bytes.fromhex("020000000102")}
NEIGHBOUR = bytes.fromhex("02aa00000001")
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
[offload]
prefixes = ["offload.txt"]
[alias]
unsolicited_syn = "unreachable"
"""
LONGEST_TIMER_NS = 4 * 3600 * SECOND_NS


# The bench


class Bench:
    """A gateway, its clock, and the rules that every frame must hold. `neighbours`: ARP requests are answered at once,
    so that what waited leaves in the same step as its cause. `left`: every packet that was sent, ARP left out."""

    def __init__(self, folder: Path, *, offload: str, neighbours: bool, static: str = "") -> None:
        (folder / "gateway.toml").write_text(CONFIGURATION + f"[tap0.arp]\n{static}\n")
        (folder / "offload.txt").write_text(offload)
        config = load(folder / "gateway.toml", "replay")
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(0), events=True)
        self.now = 1000 * SECOND_NS
        self.neighbours = neighbours
        self.left: list[bytes] = []
        self.static = bool(static)
        self.verdicts: dict[str, int] = dict.fromkeys(("send", "answer", "hold", "drop"), 0)

    def until(self, then: int) -> None:
        """Let the clock run on to `then`; what timers send is our own and must be right."""
        while (due := self.gateway.next_deadline()) is not None and due <= then:
            self.now = max(self.now, due)
            for effect in self.gateway.tick(self.now):
                if isinstance(effect, Send):
                    self._look_at(effect, came_right=True)
            balance.check(self.gateway)
            following = self.gateway.next_deadline()
            assert following is None or following > due, "a timer does not move on"
        self.now = max(self.now, then)

    def _dropped(self) -> int:
        """Frames that came in and were dropped; not what was lost of our own messages."""
        return sum(port.dropped for port in self.gateway.counters.ports.values())

    def feed(self, port: str, frame: bytes) -> list[Send]:
        """One frame in; what came of it."""
        counters = self.gateway.counters
        received, dropped = counters.ports[port].rx_packets, self._dropped()
        told = self.gateway.trace(port, frame, self.now)
        assert counters.ports[port].rx_packets == received + 1
        if told.verdict == "drop":
            assert told.drop is not None
            assert self._dropped() > dropped, "a drop that nobody counted"
        else:
            assert self._dropped() == dropped
        if told.verdict == "send":
            assert told.out, "neither sent nor dropped"
        self.verdicts[told.verdict] += 1
        sends = list(told.out)
        if self.neighbours:
            for send in told.out:
                sends += self._answered(send)
        balance.check(self.gateway)
        packet = frame[14:] if port in MACS else frame
        came_right = transport_is_right(packet)
        for send in sends:
            self._look_at(send, came_right=came_right is not False)
            if came_right is not None and told.verdict in ("send", "hold"):
                assert_forwarded(packet, bytes(send.frame)[14 if send.port in MACS else 0 :], came_right=came_right)
        return sends

    def _answered(self, asked: Send) -> list[Send]:
        """The reply to an ARP request of the gateway, and what that sets free."""
        frame = bytes(asked.frame)
        if asked.port not in MACS or frame[12:14] != b"\x08\x06" or frame[20:22] != b"\0\1" or frame[28:32] == bytes(4):
            return []
        reply = frame[6:12] + NEIGHBOUR + frame[12:20] + b"\0\2" + NEIGHBOUR + frame[38:42] + frame[22:32]
        return [effect for effect in self.gateway.receive(asked.port, reply, self.now) if isinstance(effect, Send)]

    def _look_at(self, send: Send, *, came_right: bool) -> None:
        frame = bytes(send.frame)
        packet = frame
        if send.port in MACS:
            assert frame[6:12] == MACS[send.port]
            if frame[12:14] == b"\x08\x06":
                assert len(frame) == 60
                return
            assert frame[12:14] == b"\x08\x00"
            packet = frame[14:]
        self.left.append(packet)
        header_bytes = (packet[0] & 15) * 4
        assert packet[0] >> 4 == 4
        assert checksum(packet[:header_bytes]) == 0
        assert int.from_bytes(packet[2:4], "big") == len(packet), "padding left with the packet"
        assert packet[8] > 0, "a TTL of zero left"
        assert not came_right or transport_is_right(packet) is not False, f"made wrong on {send.port}: {packet.hex()}"

    def assert_empty(self) -> None:
        """After all timers: no links, no fragments, nothing that waits, nothing learned, no timer."""
        self.until(self.now + LONGEST_TIMER_NS)
        gateway = self.gateway
        assert list(gateway.aliases.links(self.now)) == []
        assert (gateway.fragments.waiting, gateway.fragments.waiting_bytes, gateway.fragments.decided) == (0, 0, 0)
        assert len(gateway.reassembly) == 0
        for table in gateway.arp.values():
            assert (table.waiting_frames, table.waiting_bytes) == (0, 0)
        assert sum(table.used for table in gateway.arp.values()) == self.static
        assert gateway.next_deadline() is None


def transport_is_right(packet: bytes) -> bool | None:
    """Whether a whole TCP, UDP or ICMP packet has a right checksum; None for everything else (RFC 1071 by scapy)."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header_bytes, total_bytes = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    if not 20 <= header_bytes <= total_bytes <= len(packet) or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return None
    protocol, body = packet[9], packet[header_bytes:total_bytes]
    if protocol == 1:
        return len(body) >= 8 and checksum(body) == 0
    if protocol == 17 and len(body) >= 8:
        if body[6:8] == b"\0\0":
            return True
        body = body[: int.from_bytes(body[4:6], "big")]
    elif protocol != 6 or len(body) < 20:
        return None
    return bool(checksum(packet[12:20] + bytes((0, protocol)) + len(body).to_bytes(2, "big") + body) == 0)


def assert_forwarded(came: bytes, left: bytes, *, came_right: bool) -> None:
    """The packet that left is the one that came, under other names: the same data, and a checksum as right or wrong as
    before (RFC 1624). Pieces of it, and messages of our own, are something else."""
    came = came[: int.from_bytes(came[2:4], "big")]
    if left[:1] != came[:1] or len(left) != len(came) or left[9] != came[9]:
        return
    start = (came[0] & 15) * 4
    start += (came[start + 12] >> 4) * 4 if came[9] == 6 else 8
    if left[9] != 1 or came[start - 8] not in (3, 11, 12):  # of an error the quoted packet has other names, too
        assert left[start:] == came[start:], "the data has changed"
    assert transport_is_right(left) is came_right


# Frames made to fit


def to_us(port: str, frame: bytes) -> bytes:
    """The frame with the MAC addresses of that wire."""
    return MACS[port] + NEIGHBOUR + frame[12:]


def between(source: str | None, destination: str | None, packet: bytes) -> bytes:
    """An IPv4 packet under other addresses: its header checksum is made anew, the transport's changed as a NAT would
    (in plain arithmetic), so that it stays as right or wrong as it was."""
    if len(packet) < 20:
        return packet
    raw = bytearray(packet)
    before = sum(struct.unpack("!4H", raw[12:20]))
    if source is not None:
        raw[12:16] = IPv4Address(source).packed
    if destination is not None:
        raw[16:20] = IPv4Address(destination).packed
    header_bytes = (raw[0] & 15) * 4
    if checksum(packet[:header_bytes]) == 0:
        raw[10:12] = b"\0\0"
        raw[10:12] = checksum(bytes(raw[:header_bytes])).to_bytes(2, "big")
    field = {6: 16, 17: 6}.get(raw[9])
    if field is None or int.from_bytes(raw[6:8], "big") & 0x1FFF or len(raw) < header_bytes + field + 2:
        return bytes(raw)
    at = header_bytes + field
    old = int.from_bytes(raw[at : at + 2], "big")
    if old or raw[9] == 6:
        new = (0xFFFF - old - before + sum(struct.unpack("!4H", raw[12:20]))) % 0xFFFF
        raw[at : at + 2] = (0xFFFF - new).to_bytes(2, "big")
    return bytes(raw)


def conversation(frames: list[tuple[int, bytes]], outside: str) -> Iterator[tuple[int, str, bytes]]:
    """A capture as if its first sender were a LAN host behind us: what it sends comes in by tap0, what it is sent by
    `outside`, to our address there. Ports stay: the first to use one keeps it."""
    first: bytes | None = None
    for at, frame in frames:
        packet = frame[14:]
        if frame[12:14] != b"\x08\x00" or len(packet) < 20:
            continue
        first = first or packet[12:16]
        if packet[12:16] == first:
            remote = None if packet[16] in range(1, 224) and packet[16] not in (10, 127, 172, 192) else REMOTE
            yield at, "tap0", to_us("tap0", frame[:14] + between(A, remote, packet))
        elif packet[16:20] == first:
            remote = None if packet[12] in range(1, 224) and packet[12] not in (10, 127, 172, 192) else REMOTE
            packet = between(remote, OURS[outside], packet)
            yield at, outside, to_us(outside, frame[:14] + packet) if outside in MACS else packet


VARIANTS = ("as it is", "to us", "raw", "conversation by tap1", "conversation by vpn", "nobody answers")


def inputs(frames: list[tuple[int, bytes]], variant: str) -> Iterator[tuple[int, str, bytes]]:
    """The frames of a capture as they are fed: (time, port, frame)."""
    if variant.startswith("conversation"):
        yield from conversation(frames, variant.rpartition(" ")[2])
        return
    for at, frame in frames:
        if variant == "raw":
            for port, source in (("tun0", HOST), ("vpn", None)):
                yield at, port, frame[14:]
                yield at, port, between(source, None if port == "tun0" else HOST, frame[14:])
            continue
        for port in MACS:
            if variant == "as it is":
                yield at, port, frame
                continue
            yield at, port, to_us(port, frame)
            inside = between(A if port == "tap0" else None, None if port == "tap0" else OURS["tap1"], frame[14:])
            yield at, port, to_us(port, frame[:14] + inside)
            yield at, port, to_us(port, frame[:14] + between(None, "192.168.200.77", inside))


def run(bench: Bench, frames: list[tuple[int, bytes]], variant: str, name: str) -> None:
    """Feed one capture, then let all timers run out."""
    begin = bench.now
    first = frames[0][0] if frames else 0
    for number, (at, port, frame) in enumerate(inputs(frames, variant)):
        try:
            bench.until(max(bench.now, begin + at - first))
            bench.feed(port, frame)
        except Exception as failure:  # whatever it is, the frame that did it is told
            raise AssertionError(f"{name}, {variant}, input {number} on {port}: {frame[:256].hex()}") from failure
    bench.assert_empty()


def records(path: Path) -> list[tuple[int, bytes]]:
    """The frames of a capture with their times; of one that is cut, those in front of the cut."""
    found = []
    with path.open("rb") as file:
        try:
            found += [(record.timestamp_ns, bytes(record.data)) for record in pcap.read(file, path.name)]
        except pcap.CaptureError as fault:
            assert path.name in str(fault)  # noqa: PT017 - a cut file is expected, and says where it is cut
    return found


def bench_of(folder: Path, variant: str) -> Bench:
    offload = "0.0.0.0/1\n128.0.0.0/1\n" if variant not in ("raw", "conversation by vpn") else ""
    return Bench(folder, offload=offload, neighbours=variant != "nobody answers")


# Captures of others


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["real", "malformed"])
def test_no_capture_breaks_the_gateway_or_stays_in_its_memory(
    tmp_path: Path, shared: Path, kind: str, variant: str
) -> None:
    paths = sorted((shared / "pcaps" / kind).glob("*.pcap*"))
    if not paths:
        pytest.skip(f"no captures in {shared.name}/pcaps/{kind}")
    bench = bench_of(tmp_path, variant)
    for path in paths:
        run(bench, records(path), variant, path.name)
    assert bench.verdicts["drop"] > 0
    if variant not in ("as it is", "nobody answers"):
        assert bench.verdicts["send"] > 100, "the packets get somewhere"


# Captures of our own


def tcp(flags: str, number: int, *, back: bool = False, data: bytes = b"", **fields: object) -> ScapyPacket:
    ends = (REMOTE, A, 80, 5000) if back else (A, REMOTE, 5000, 80)
    return IP(src=ends[0], dst=ends[1]) / TCP(sport=ends[2], dport=ends[3], flags=flags, seq=number, **fields) / data


def well_formed() -> list[ScapyPacket]:
    """The frames that a LAN and its gateway see on an ordinary day, and everything that an IPv4 gateway does not
    carry."""
    echo = IP(src=A, dst=REMOTE) / ICMP(id=7, seq=1) / Raw(bytes(range(56)))
    question = IP(src=A, dst="9.9.9.9") / UDP(sport=5353, dport=53) / DNS(qd=DNSQR(qname="example.org"))
    sent = IP(src=A, dst=REMOTE, ttl=3) / UDP(sport=6000, dport=33434) / b"probe"
    head = IP(src=A, dst=REMOTE)
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    packets: list[ScapyPacket] = [
        tcp("S", 100, options=options),
        tcp("SA", 500, back=True, ack=101, options=options),
        tcp("A", 101, ack=501),
        tcp("PA", 101, ack=501, data=b"GET / HTTP/1.0\r\n\r\n"),
        tcp("PA", 501, back=True, ack=119, data=bytes(1460)),
        tcp("FA", 119, ack=1961),
        tcp("FA", 1961, back=True, ack=120),
        tcp("A", 120, ack=1962),
        tcp("R", 121),
        echo,
        IP(src=REMOTE, dst=A) / ICMP(type=0, id=7, seq=1) / Raw(bytes(range(56))),
        IP(src=A, dst=REMOTE) / ICMP(type=13, id=8, ts_ori=1, ts_rx=0, ts_tx=0),
        question,
        sent,
        IP(src="198.51.100.1", dst=A) / ICMP(type=11, code=0) / sent,
        IP(src="198.51.100.1", dst=A) / ICMP(type=3, code=4, nexthopmtu=1400) / tcp("PA", 101, ack=501),
        IP(src=REMOTE, dst=A) / ICMP(type=3, code=3) / Raw(bytes(sent)[:28]),
        IP(src=REMOTE, dst=A) / ICMP(type=5, code=1, gw="192.168.1.9") / sent,
        *fragment(head / UDP(sport=6001, dport=9) / bytes(5000), 1480),
        *reversed(fragment(IP(src=A, dst=REMOTE, id=77) / ICMP(id=9) / Raw(bytes(4000)), 1000)),
        *fragment(IP(src=A, dst=OURS["tap0"], id=78) / ICMP(id=9) / Raw(bytes(4000)), 1480),
        *fragment(IP(src=A, dst=REMOTE, id=79) / UDP(sport=6002, dport=9) / bytes(3000), 1480)[1:],
        IP(src=A, dst=REMOTE, flags="DF") / UDP(sport=6003, dport=9) / bytes(1472),
        IP(src=A, dst=REMOTE) / UDP(sport=6003, dport=9) / bytes(8000),
        IP(src=A, dst=REMOTE, options=[IPOption_RR(routers=["0.0.0.0"] * 3)]) / UDP(sport=6004, dport=9),
        IP(src=A, dst=REMOTE, options=[IPOption_Router_Alert()]) / UDP(sport=6004, dport=9),
        IP(src=A, dst=REMOTE, options=[IPOption_LSRR(routers=["9.9.9.9"])]) / UDP(sport=6004, dport=9),
        IP(src=A, dst=REMOTE) / UDP(sport=6005, dport=9, chksum=0) / b"no checksum",
        IP(src=A, dst=REMOTE, ttl=1) / UDP(sport=6005, dport=9),
        IP(src=A, dst="224.0.0.22", ttl=1, proto=2) / Raw(bytes.fromhex("2200f9020000000104000000ef010203")),
        IP(src=A, dst="192.168.200.255") / UDP(sport=137, dport=137) / bytes(50),
        IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=NEIGHBOUR, xid=7)
        / DHCP(options=[("message-type", "discover"), "end"]),
        head / SCTP(sport=1, dport=2, tag=7) / b"chunk",
        head / GRE() / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
        *(
            IP(src=A, dst=REMOTE, proto=number) / Raw(bytes(range(40)))
            for number in (0, 4, 33, 41, 50, 51, 136, 200, 255)
        ),
        IP(src=A, dst=OURS["tap0"]) / UDP(sport=6006, dport=9),
        IP(src=A, dst=OURS["tap1"]) / TCP(sport=6006, dport=9, flags="S"),
    ]
    link = Ether(src="02:aa:00:00:00:0a", dst="02:00:00:00:c8:02")
    return [link / packet for packet in packets] + [
        Ether(src="02:aa:00:00:00:0a", dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=1, hwsrc="02:aa:00:00:00:0a", psrc=A, hwdst="00:00:00:00:00:00", pdst=OURS["tap0"]),
        link / ARP(op=2, hwsrc="02:aa:00:00:00:0a", psrc=A, hwdst="02:00:00:00:c8:02", pdst=OURS["tap0"]),
        link / ARP(op=1, hwsrc="02:aa:00:00:00:0a", psrc=OURS["tap0"], hwdst="00:00:00:00:00:00", pdst=A),
        link / Dot1Q(vlan=7) / echo,
        link / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6EchoRequest(),
        Dot3(src="02:aa:00:00:00:0a", dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(bytes(35)),
        Dot3(src="02:aa:00:00:00:0a", dst="02:00:00:00:c8:02") / LLC() / SNAP(OUI=0, code=0x0800) / echo,
        Ether(src="02:aa:00:00:00:0a", dst="02:00:00:00:c8:02", type=0x88CC) / Raw(bytes(20)),
    ]


def damaged(frames: Iterable[bytes], seed: int) -> Iterator[bytes]:
    """The same frames cut, lengthened, with changed bytes, with header checksums that fit the damage or do not."""
    rng = random.Random(seed)
    for frame in frames:
        yield frame[: rng.randrange(len(frame) + 1)]
        yield frame[:14] + frame[14 : 14 + rng.randrange(40)]
        yield frame + rng.randbytes(rng.randrange(40))
        for _ in range(12):
            bad = bytearray(frame)
            for _ in range(rng.choice((1, 1, 2, 8))):
                bad[rng.randrange(12 if rng.random() < 0.1 else 14, min(len(bad), 80))] = rng.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
                )
            header_bytes = (bad[14] & 15) * 4
            if bad[12:14] == b"\x08\x00" and rng.random() < 0.9 and header_bytes >= 20:
                bad[24:26] = b"\0\0"
                bad[24:26] = checksum(bytes(bad[14 : 14 + header_bytes])).to_bytes(2, "big")
            yield bytes(bad)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[tuple[int, bytes]]]]:
    """Captures as scapy writes them: the ordinary day, and what is left of it after an accident."""
    folder = tmp_path_factory.mktemp("captures")
    day = [bytes(packet) for packet in well_formed()]
    found = []
    for name, frames in (("day", day), *((f"accident{seed}", list(damaged(day, seed))) for seed in range(3))):
        packets = [Raw(frame) for frame in frames]
        for number, packet in enumerate(packets):
            packet.time = 1_700_000_000 + number * 0.0625
        wrpcap(str(folder / f"{name}.pcap"), packets, linktype=1)
        found.append((name, records(folder / f"{name}.pcap")))
        assert [frame for _, frame in found[-1][1]] == frames
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_nor_does_one_of_our_own(tmp_path: Path, own: list[tuple[str, list[tuple[int, bytes]]]], variant: str) -> None:
    bench = bench_of(tmp_path, variant)
    for name, frames in own:
        run(bench, frames, variant, name)
    assert bench.verdicts["drop"] > 0
    if variant not in ("as it is", "nobody answers"):
        assert bench.verdicts["send"] > 100, "the packets get somewhere"


@pytest.mark.parametrize("neighbours", [True, False])
def test_each_of_a_thousand_marked_packets_is_found_again(tmp_path: Path, neighbours: bool) -> None:
    """Conservation: a packet that carries its number leaves once, or is counted as dropped once, and never both."""
    bench = Bench(tmp_path, offload="203.0.113.0/24\n", neighbours=neighbours, static=f'"{A}" = "02:aa:00:00:00:0a"')
    rng = random.Random(1)
    others = [REMOTE, "8.8.8.8", HOST, "10.1.1.1", OURS["tap0"], OURS["tap1"], "224.0.0.1"]
    for number in range(1000):
        source = "10.9.9.9" if rng.random() < 0.1 else A
        destination = rng.choice([*others, f"192.168.200.{rng.randrange(256)}"])
        packet = IP(src=source, dst=destination, ttl=rng.choice((64, 64, 64, 1))) / UDP(sport=5000, dport=9)
        bench.feed("tap0", to_us("tap0", bytes(12) + b"\x08\x00" + bytes(packet / (b"mark%4d" % number))))
        bench.until(bench.now + rng.choice((1_000, 1_000_000, 300_000_000)))
    bench.assert_empty()
    left = [packet[-4:] for packet in bench.left if packet[-8:-4] == b"mark" and packet[9] == 17]
    assert len(left) == len(set(left)), "none leaves twice"
    assert len(left) > 100
    assert len(left) + sum(bench.gateway.counters.drops_by_port.values()) == 1000
