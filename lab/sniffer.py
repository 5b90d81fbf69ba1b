"""The frames that pass a device of the lab, as an eavesdropper on the cable sees them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bridge.ports.namespace import entered
from lab.namespace import Namespace
from wire import ethernet, ipv4
from wire.units import address_text

_EVERY_PROTOCOL = 0x0003
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_STATISTICS = struct.Struct("=II")
_BUFFER_BYTES = 64 << 20
_LONGEST_BYTES = 1 << 17


class SeenDatagram(NamedTuple):
    """A UDP datagram on the cable; both ends as `address:port`."""

    source: str
    destination: str
    payload: bytes


class Sniffer:
    """Keeps the frames of `device` in both directions, in the kernel's memory, until they are asked for."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        with entered(namespace.name):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setblocking(False)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            except PermissionError:  # in a user namespace
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((device, _EVERY_PROTOCOL))

    def frames(self) -> list[bytes]:
        """All frames since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(_LONGEST_BYTES))
            except BlockingIOError:
                return found

    def missed(self) -> int:
        """Frames since the last call that there was no memory for."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        return int(_STATISTICS.unpack(raw)[1])

    def close(self) -> None:
        """No more."""
        self._socket.close()


def overheard(frames: Iterable[bytes], needles: Sequence[bytes]) -> int:
    """How often one of the needles lies open in a frame."""
    return sum(needle in frame for frame in frames for needle in needles)


def datagram_in(frame: bytes) -> SeenDatagram | None:
    """The UDP datagram of an Ethernet frame; None for anything else."""
    if frame[12:14] != ethernet.IPV4_TYPE:
        return None
    packet = ipv4.parse(frame, ethernet.HEADER_BYTES)
    if not isinstance(packet, ipv4.Packet) or packet.protocol != ipv4.UDP:
        return None
    body = frame[ethernet.HEADER_BYTES + (frame[ethernet.HEADER_BYTES] & 15) * 4 :]
    source, destination, length = (int.from_bytes(body[at : at + 2], "big") for at in (0, 2, 4))
    return SeenDatagram(
        f"{address_text(packet.source)}:{source}", f"{address_text(packet.destination)}:{destination}", body[8:length]
    )
