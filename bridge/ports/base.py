"""`Port`: the only place where frames enter and leave.

A port hands over the frames that it read as plain values, and takes frames back. It knows no address and no policy.
Frames of a tap begin with their Ethernet header, frames of a tun with the IP header; the offsets of a `GsoHeader` count
from the IP header on both, `link_bytes` is the difference.
"""

from __future__ import annotations

from typing import Literal, Protocol

from wire.drop import Drop
from wire.gso import GsoHeader

PortKind = Literal["tap", "tun"]
ReceivedFrame = tuple[bytes, GsoHeader | None]
"""A frame with its link header, and the virtio header of a super-frame or a partial checksum; None is a plain frame."""

LINK_BYTES: dict[PortKind, int] = {"tap": 14, "tun": 0}


class PortError(Exception):
    """A port cannot be set up as the configuration says; the message tells an operator the obstacle."""


class PortGone(Exception):
    """The device behind a port was removed while the gateway ran."""


class Port(Protocol):
    """Reads and writes never block.

    `name`: as in the configuration (`tap0`, `tap1`, `tun0`, `vpn`). `fileno`: becomes readable when frames wait, for
    epoll.
    """

    @property
    def name(self) -> str:
        """The name that the walk knows the port by."""

    @property
    def kind(self) -> PortKind:
        """`tap`: Ethernet frames; `tun`: raw IP packets."""

    @property
    def link_bytes(self) -> int:
        """Bytes in front of the IP header: 14 or 0."""

    def fileno(self) -> int:
        """The descriptor to wait for."""

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        """At most `limit` waiting frames, the oldest first; none where none waits. `PortGone` where the device went."""

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """Send one frame. A refusal of the kernel is a drop with its reason, never an error."""

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
