"""One line about a frame, for people: what `trace`, `capture` and `replay` print.

dpkt decodes one header at a time: given a whole packet, it would follow quoted packets, and a hostile packet could nest
them until Python's stack ends. Nothing here decides anything; a malformed frame is described as far as it makes sense.
"""

from __future__ import annotations

from dpkt import Error
from dpkt.arp import ARP
from dpkt.ip import IP
from dpkt.tcp import TCP
from dpkt.udp import UDP

from wire import ipv4
from wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_BYTES
from wire.units import mac_text

_FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"), (0x80, "W"), (0x10, "."))
_ECHO = {8: "echo request", 0: "echo reply"}
_QUERIES = {13: "timestamp request", 14: "timestamp reply", 15: "information request", 16: "information reply"} | {
    17: "mask request",
    18: "mask reply",
}
_UNREACHABLE = ("net", "host", "protocol", "port")
_PROTOCOLS = {2: "IGMP", 33: "DCCP", 41: "IPv6 in IPv4", 47: "GRE", 50: "ESP", 51: "AH", 132: "SCTP", 136: "UDP-Lite"}
_ARP_REPLY = 2
_SMALLEST_ETHERTYPE = 0x0600  # below, the field is an 802.3 length


def summary(frame: bytes, *, ethernet: bool) -> str:
    """The line. `ethernet`: the frame begins with 14 bytes of Ethernet header, else with the IP header."""
    if not ethernet:
        return _packet(frame)
    if len(frame) < HEADER_BYTES:
        return f"short frame, {len(frame)} bytes"
    kind = int.from_bytes(frame[12:14], "big")
    payload = frame[HEADER_BYTES:]
    if kind == ETHERTYPE_IPV4:
        return _packet(payload)
    ends = f"{mac_text(frame[6:12])} > {mac_text(frame[:6])}"
    if kind == ETHERTYPE_ARP:
        return _arp(payload, ends)
    if kind == ETHERTYPE_IPV6:
        return f"{ends} IPv6, {len(payload)} bytes"
    name = "802.3" if kind < _SMALLEST_ETHERTYPE else f"ethertype 0x{kind:04x}"
    return f"{ends} {name}, {len(payload)} bytes"


def _arp(payload: bytes, ends: str) -> str:
    try:
        arp = ARP(payload)
    except Error:
        return f"{ends} ARP, malformed"
    if (arp.hln, arp.pln) != (6, 4):
        return f"{ends} ARP, malformed"
    if arp.op == _ARP_REPLY:
        return f"ARP {_dotted(arp.spa)} is at {mac_text(arp.sha)}"
    if arp.op != 1:
        return f"{ends} ARP, opcode {arp.op}"
    if arp.spa == arp.tpa:
        return f"ARP announcement, {_dotted(arp.spa)} is at {mac_text(arp.sha)}"
    if not any(arp.spa):
        return f"ARP probe, who has {_dotted(arp.tpa)}"
    return f"ARP who has {_dotted(arp.tpa)}, tell {_dotted(arp.spa)}"


def _packet(data: bytes, *, quoted: bool = False) -> str:
    if data and data[0] >> 4 == 6:
        return f"IPv6, {len(data)} bytes"
    header_bytes = (data[0] & 15) * 4 if data else 0
    try:
        header = IP(data[: max(header_bytes, ipv4.MINIMUM_HEADER_BYTES)])
    except Error:
        return f"malformed IPv4, {len(data)} bytes"
    if data[0] >> 4 != 4:
        return f"IP version {data[0] >> 4}, {len(data)} bytes"
    source, destination = _dotted(header.src), _dotted(header.dst)
    payload = data[header_bytes : max(header.len, header_bytes)]
    tail = "" if quoted else f", ttl {header.ttl}" + (f", id {header.id}" if header.mf or header.offset else "")
    if header.offset:
        more = "+" if header.mf else ""
        name = _name(header.p)
        return f"{source} > {destination} {name} fragment {header.offset * 8}{more}, {len(payload)} bytes{tail}"
    if header.mf:
        tail = f", first fragment{tail}"
    return _transport(header.p, payload, source, destination, quoted=quoted) + tail


def _transport(protocol: int, payload: bytes, source: str, destination: str, *, quoted: bool) -> str:
    """The line from the addresses on. Of a quoted packet eight bytes are enough (RFC 792)."""
    if protocol in (ipv4.TCP, ipv4.UDP) and quoted and len(payload) >= 4:
        return f"{_end(source, payload[:2])} > {_end(destination, payload[2:4])} {_name(protocol)}"
    try:
        if protocol == ipv4.TCP:
            return _tcp(TCP(payload), source, destination)
        if protocol == ipv4.UDP:
            datagram = UDP(payload)
            ends = f"{source}:{datagram.sport} > {destination}:{datagram.dport}"
            return f"{ends} UDP, {len(datagram.data)} bytes"
    except Error:
        return f"{source} > {destination} malformed {_name(protocol)}, {len(payload)} bytes"
    if protocol == ipv4.ICMP:
        return f"{source} > {destination} {_icmp(payload, quoted=quoted)}"
    return f"{source} > {destination} {_name(protocol)}, {len(payload)} bytes"


def _tcp(segment: TCP, source: str, destination: str) -> str:
    flags = "".join(letter for bit, letter in _FLAGS if segment.flags & bit) or "none"
    acknowledgment = f" ack {segment.ack}" if segment.flags & 0x10 else ""
    return (
        f"{source}:{segment.sport} > {destination}:{segment.dport} TCP [{flags}] seq {segment.seq}{acknowledgment}"
        f" win {segment.win}, {len(segment.data)} bytes"
    )


def _icmp(payload: bytes, *, quoted: bool) -> str:
    if len(payload) < 8:
        return f"malformed ICMP, {len(payload)} bytes"
    kind, code = payload[0], payload[1]
    if kind in _ECHO:
        identifier, sequence = int.from_bytes(payload[4:6], "big"), int.from_bytes(payload[6:8], "big")
        return f"ICMP {_ECHO[kind]}, id {identifier}, seq {sequence}, {len(payload) - 8} bytes"
    if kind in _QUERIES:
        return f"ICMP {_QUERIES[kind]}, id {int.from_bytes(payload[4:6], 'big')}"
    if kind not in ipv4.ICMP_ERRORS:
        return f"ICMP type {kind} code {code}, {len(payload)} bytes"
    words = f"ICMP {kind}/{code}"
    if kind == 3 and code < len(_UNREACHABLE):
        words += f" {_UNREACHABLE[code]} unreachable"
    elif kind == 3 and code == 4:
        words += f" fragmentation needed, MTU {int.from_bytes(payload[6:8], 'big')}"
    elif kind == 11:
        words += " time exceeded"
    return words if quoted else f"{words} about ({_packet(payload[8:], quoted=True)})"


def _name(protocol: int) -> str:
    names = {ipv4.ICMP: "ICMP", ipv4.TCP: "TCP", ipv4.UDP: "UDP"}
    return names.get(protocol) or _PROTOCOLS.get(protocol) or f"protocol {protocol}"


def _end(address: str, port: bytes) -> str:
    return f"{address}:{int.from_bytes(port, 'big')}"


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
