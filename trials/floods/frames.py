"""Floods of frames, for the lab alone: `python -m trials.floods.frames KIND INTERFACE GATEWAY_MAC RATE MOST_S`.

KIND is one of `FRAMES`: what each of them sends stands there. The frames are made before and lie in one piece of
memory; `sendmmsg` puts them on the interface of this namespace, RATE a second (0: as fast as it goes), round and round,
from one line on standard input to the next, and at most for MOST_S seconds. It says `ready` before, and prints what it
sent.

The descriptors of `sendmmsg` are laid out as 64-bit machines have them.
"""

from __future__ import annotations

import ctypes
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from lab.topology import HOSTS, OFFLOADED, TAP0, TAP1
from wire import ethernet, ipv4
from wire.checksum import checksum, pseudo_header_sum

MOST_FRAMES = 100_000
_BATCH = 64
_IOVEC = struct.Struct("@QQ")
_MMSGHDR = struct.Struct("@QIxxxxQQQQixxxxIxxxx")  # sendmmsg(2): a msghdr whose one iovec is all it has
_LIBC = ctypes.CDLL(None, use_errno=True)

FLOODER = int(IPv4Address(HOSTS["lan4"]))
_TAP0, _TAP1, _OFFLOADED = (int(IPv4Address(text)) for text in (TAP0, TAP1, OFFLOADED))
_LAN = _TAP0 & ~0xFF
_WORLD = int(IPv4Address("203.0.113.0"))
SYN = 0x02

Frames = Callable[[bytes, bytes, random.Random], Iterator[bytes]]
"""From our MAC address and the gateway's."""


def _tcp(source: int, source_port: int, destination: int, port: int, flags: int) -> bytes:
    body = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 0x50, flags, 0xFFFF, 0, 0)
    check = checksum(body, pseudo_header_sum(source, destination, ipv4.TCP, len(body)))
    body = body[:16] + check.to_bytes(2, "big") + body[18:]
    return ipv4.header(source, destination, ipv4.TCP, len(body), ttl=64, flags=ipv4.DONT_FRAGMENT) + body


def _udp(source: int, source_port: int, destination: int, port: int) -> bytes:
    body = struct.pack("!HHHH", source_port, port, 18, 0) + b"flooding.."  # a checksum of zero: none
    return ipv4.header(source, destination, ipv4.UDP, len(body), ttl=64, flags=ipv4.DONT_FRAGMENT) + body


def _either(number: int, rng: random.Random) -> int:
    """Somebody by tap1, or somebody by the tunnel."""
    base = _OFFLOADED & ~0xFFFF if number % 2 else _WORLD & ~0xFFFF
    return base | rng.randrange(1, 0xFFFE)


def _framed(packets: Iterator[bytes], ours: bytes, gateway: bytes) -> Iterator[bytes]:
    return (gateway + ours + ethernet.IPV4_TYPE + packet for packet in packets)


def syn(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """SYNs of one LAN host, to random hosts by both ways out."""
    packets = (
        _tcp(FLOODER, rng.randrange(1024, 65536), _either(number, rng), rng.randrange(1, 65536), SYN)
        for number in range(MOST_FRAMES)
    )
    return _framed(packets, ours, gateway)


def destinations(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """UDP of one port of a LAN host to 100,000 destinations."""
    packets = (
        _udp(FLOODER, 5000, (_OFFLOADED if number % 2 else _WORLD) & ~0x1FFFF | number, 53)
        for number in range(MOST_FRAMES)
    )
    return _framed(packets, ours, gateway)


def ports(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """UDP of every port of a LAN host, by both ways out."""
    packets = (_udp(FLOODER, 1024 + number % 64_512, _either(number, rng), 53) for number in range(2 * 64_512))
    return _framed(packets, ours, gateway)


def spoofed(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """UDP of one LAN host under every address of the LAN but the gateway's and lan3's, from every port."""
    free = [_LAN | last for last in range(4, 255)]
    packets = (
        _udp(rng.choice(free), rng.randrange(1024, 65536), _either(number, rng), 53) for number in range(MOST_FRAMES)
    )
    return _framed(packets, ours, gateway)


def strangers(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """The same, each datagram from another random MAC address."""
    return (frame[:7] + rng.randbytes(5) + frame[12:] for frame in spoofed(ours, gateway, rng))


def arp(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """ARP requests for the gateway and replies to it, of random senders; in half of them the frame's source too."""
    for number in range(MOST_FRAMES // 2):
        mac = bytes([2]) + rng.randbytes(5)
        asks = number % 2
        target = b"\xff" * 6 if asks else gateway
        sender = _LAN | rng.randrange(4, 255)
        yield (
            target + (mac if number % 4 < 2 else ours) + ethernet.ARP_TYPE
            + struct.pack("!HHBBH6sI6sI", 1, 0x0800, 6, 4, 1 if asks else 2, mac, sender, gateway, _TAP0)
            + bytes(18)
        )  # fmt: skip


def fragments(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """Later fragments of datagrams whose first fragment never comes."""
    packets = (
        ipv4.header(
            FLOODER,
            _either(number, rng),
            ipv4.UDP,
            512,
            ttl=64,
            identification=rng.randrange(65536),
            flags=ipv4.MORE_FRAGMENTS | 64,
        )
        + bytes(512)
        for number in range(MOST_FRAMES // 4)
    )
    return _framed(packets, ours, gateway)


def unsolicited(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """From the ISP's side: SYNs and UDP of random hosts to every port of tap1's address."""
    packets = (
        _tcp(rng.randrange(1 << 24, 0x7F000000), rng.randrange(1, 65536), _TAP1, rng.randrange(1, 65536), SYN)
        if number % 2
        else _udp(rng.randrange(1 << 24, 0x7F000000), rng.randrange(1, 65536), _TAP1, rng.randrange(1, 65536))
        for number in range(MOST_FRAMES)
    )
    return _framed(packets, ours, gateway)


def errors(ours: bytes, gateway: bytes, rng: random.Random) -> Iterator[bytes]:
    """From the ISP's side: ICMP errors of random routers, quoting datagrams that nobody sent."""
    for _ in range(MOST_FRAMES // 2):
        source = rng.randrange(1 << 24, 0x7F000000)
        message = bytes([3, 1, 0, 0, 0, 0, 0, 0]) + _udp(_TAP1, rng.randrange(1, 65536), source, 53)[:28]
        message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
        packet = ipv4.header(source, _TAP1, ipv4.ICMP, len(message), ttl=64) + message
        yield gateway + ours + ethernet.IPV4_TYPE + packet


FRAMES: dict[str, Frames] = {
    kind.__name__: kind for kind in (syn, destinations, ports, spoofed, strangers, arp, fragments, unsolicited, errors)
}


class Ring:
    """Frames in one piece of memory with what `sendmmsg` wants to know of them."""

    def __init__(self, frames: list[bytes]) -> None:
        self.count = len(frames)
        self._data = ctypes.create_string_buffer(b"".join(frames))
        self._vectors = ctypes.create_string_buffer(_IOVEC.size * self.count)
        self._messages = ctypes.create_string_buffer(_MMSGHDR.size * self.count)
        start, vectors = ctypes.addressof(self._data), ctypes.addressof(self._vectors)
        for number, frame in enumerate(frames):
            _IOVEC.pack_into(self._vectors, number * _IOVEC.size, start, len(frame))
            vector = vectors + number * _IOVEC.size
            _MMSGHDR.pack_into(self._messages, number * _MMSGHDR.size, 0, 0, vector, 1, 0, 0, 0, 0)
            start += len(frame)
        self._at = 0

    def send(self, descriptor: int, most: int) -> int:
        """The next frames, at most so many; how many left. A full queue takes none."""
        most = min(most, self.count - self._at)
        messages = ctypes.byref(self._messages, self._at * _MMSGHDR.size)
        sent = max(int(_LIBC.sendmmsg(descriptor, messages, most, 0)), 0)
        self._at = (self._at + sent) % self.count
        return sent


def flood(kind: str, interface: str, gateway: bytes, rate: float, most_s: float) -> dict[str, object]:
    """Send, until told to stop."""
    ours = _mac(interface)
    ring = Ring(list(FRAMES[kind](ours, gateway, random.Random(kind))))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((interface, 0))
        print("ready", flush=True)
        sys.stdin.readline()
        sent, began = 0, time.monotonic()
        while (passed_s := time.monotonic() - began) < most_s:
            due = _BATCH if rate == 0 else min(int(passed_s * rate) - sent, 16 * _BATCH)
            if select.select([sys.stdin], [], [], 0 if due >= _BATCH else _BATCH / rate / 2)[0]:
                break
            while due >= _BATCH:
                sent += ring.send(out.fileno(), _BATCH)
                due -= _BATCH
    return {"ok": sent > 0, "sent": sent, "rate": sent / max(passed_s, 1e-9), "different": ring.count}


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as handle:
        handle.bind((interface, 0))
        mac: bytes = handle.getsockname()[4]
        return mac


def main(words: list[str]) -> int:
    """The command line."""
    kind, interface, gateway, rate, most_s = words
    print(json.dumps(flood(kind, interface, bytes.fromhex(gateway.replace(":", "")), float(rate), float(most_s))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
