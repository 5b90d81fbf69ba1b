"""The MTU of a Linux bridge, which a tap must not lower.

The kernel gives a bridge the smallest MTU of its ports unless somebody set it. A tap of 1500 bytes takes a bridge of
jumbo frames down with it, and the operator's other hosts lose their long packets without a word.
"""

from __future__ import annotations

import socket
import struct
from fcntl import ioctl
from typing import Final

from bridge.ports.base import PortError
from bridge.ports.namespace import entered

_SIOCGIFMTU: Final = 0x8921
_REQUEST = struct.Struct("16si12x")  # struct ifreq with ifr_mtu


def mtu_of(bridge: str, netns: str | None) -> int | None:
    """The MTU of a device in bytes, in the namespace `netns` or the present one; None where it cannot be asked."""
    try:
        with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = ioctl(asking, _SIOCGIFMTU, _REQUEST.pack(bridge.encode(), 0))
    except (OSError, PortError):
        return None
    mtu_bytes: int = _REQUEST.unpack(answer)[1]
    return mtu_bytes
