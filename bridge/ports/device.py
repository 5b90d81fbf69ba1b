"""Kernel devices: a tap or tun that lives exactly as long as its descriptor.

`open_device` makes one (linux/if_tun.h): non-persistent, exclusive, without packet information, with a virtio header
in front of every frame so that super-frames and partial checksums pass through (`IFF_VNET_HDR`). The offloads are
probed: a kernel refuses bits that it does not know, so fewer are asked for until it agrees. `DevicePort` reads and
writes it. Where the kernel gives no virtio header, frames that need one are cut and completed in software.

Link settings (MTU, bridge, addresses) are made by `bridge.ports.netif`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct

from bridge.ports.base import LINK_BYTES, PortError, PortGone, PortKind, ReceivedFrame
from wire.drop import Drop
from wire.gso import HEADER_BYTES, PLAIN, GsoHeader, pack, segment, unpack

CLONE_DEVICE = "/dev/net/tun"

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNGETFEATURES = 0x800454CF

_IFF: dict[PortKind, int] = {"tun": 0x0001, "tap": 0x0002}
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_INTERFACE_BYTES = 16
_IFREQ = struct.Struct(f"{_INTERFACE_BYTES}sH22x")

CSUM, TSO4, TSO_ECN, USO = 0x01, 0x02, 0x08, 0x60
"""Offloads that let the kernel hand us packets uncut: partial checksums, TCP, TCP with CWR, UDP. The kernel takes the
two USO bits (4 and 6) together or not at all (5.2 to now); TSO6 is not asked for, IPv6 is not carried."""

OFFLOAD_STEPS = (CSUM | TSO4 | TSO_ECN | USO, CSUM | TSO4 | TSO_ECN, CSUM | TSO4, CSUM, 0)

FRAME_BYTES = 65535 + 14
"""The longest frame that a device hands over: the largest IP packet behind an Ethernet header."""

_REFUSALS = {
    errno.EAGAIN: Drop.PORT_FULL,
    errno.ENOBUFS: Drop.PORT_FULL,
    errno.ENOMEM: Drop.PORT_FULL,
    errno.EIO: Drop.PORT_DOWN,
    errno.ENETDOWN: Drop.PORT_DOWN,
    errno.EBADFD: Drop.PORT_DOWN,
    errno.ENXIO: Drop.PORT_DOWN,
    errno.EINVAL: Drop.PORT_MALFORMED,
    errno.EMSGSIZE: Drop.PORT_MALFORMED,
}


def open_device(name: str, kind: PortKind, interface: str, *, vnet_header: bool = True) -> DevicePort:
    """Make the device `interface` in the current network namespace, for the port `name`; it is down and bare.

    Raises `PortError`, which names the obstacle: no tun driver, no right (CAP_NET_ADMIN), a name that is taken or too
    long.
    """
    if not 0 < len(interface.encode()) < _INTERFACE_BYTES:
        raise PortError(f"{interface!r} is no interface name: 1 to {_INTERFACE_BYTES - 1} bytes")
    try:
        fd = os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise PortError(f"{CLONE_DEVICE} is missing; `modprobe tun` loads the driver") from error
    except OSError as error:
        raise PortError(f"{CLONE_DEVICE} cannot be opened: {error.strerror}") from error
    try:
        features = int.from_bytes(fcntl.ioctl(fd, _TUNGETFEATURES, bytes(4)), "little")
        vnet_header = vnet_header and bool(features & _IFF_VNET_HDR)
        flags = _IFF[kind] | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if vnet_header else 0)
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(interface.encode(), flags))
        offloads = 0
        if vnet_header:
            fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", HEADER_BYTES))
            offloads = _agree_on_offloads(fd)
    except OSError as error:
        os.close(fd)
        raise PortError(_why_not(error, interface)) from error
    return DevicePort(name, kind, interface, fd, vnet_header=vnet_header, offloads=offloads)


def _agree_on_offloads(fd: int) -> int:
    """The largest set of `OFFLOAD_STEPS` that the kernel takes; nothing at all is always taken."""
    for offloads in OFFLOAD_STEPS[:-1]:
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, offloads)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return offloads
    return OFFLOAD_STEPS[-1]


def _why_not(error: OSError, interface: str) -> str:
    if error.errno == errno.EPERM:
        return f"{interface} cannot be made without the right to: run as root, or with CAP_NET_ADMIN"
    if error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL):
        return f"the interface name {interface} is taken"
    return f"{interface} cannot be made: {error.strerror}"


class DevicePort:
    """A tap or tun. `interface`: its kernel name; `vnet_header`: frames carry a virtio header; `offloads`: the bits
    that the kernel agreed to.

    Reading copies each frame once, out of a page-aligned buffer that is kept.
    """

    def __init__(self, name: str, kind: PortKind, interface: str, fd: int, *, vnet_header: bool, offloads: int) -> None:
        self.name = name
        self.kind: PortKind = kind
        self.link_bytes = LINK_BYTES[kind]
        self.interface = interface
        self.vnet_header = vnet_header
        self.offloads = offloads
        self._fd = fd
        self._header = bytearray(HEADER_BYTES)
        self._frame = memoryview(mmap.mmap(-1, FRAME_BYTES))
        self._buffers: list[bytearray | memoryview] = [self._header, self._frame] if vnet_header else [self._frame]

    def fileno(self) -> int:
        """The device's descriptor; -1 once it is closed."""
        return self._fd

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        """Waiting frames until the queue is empty or `limit` is reached. The virtio header is unpacked, not judged:
        whether its claims fit the packet is seen when the packet has been parsed (`wire.gso.is_consistent`).
        `PortGone` where the device was removed."""
        fd, buffers, header, frame, link_bytes = self._fd, self._buffers, self._header, self._frame, self.link_bytes
        header_bytes = HEADER_BYTES if self.vnet_header else 0
        burst: list[ReceivedFrame] = []
        try:
            for _ in range(limit):
                count = os.readv(fd, buffers) - header_bytes
                gso = unpack(header, link_bytes) if header[0] or header[1] else None
                burst.append((bytes(frame[:count]), gso))
        except BlockingIOError:
            pass
        except OSError as error:
            if not burst:
                raise PortGone(f"{self.interface} is gone: {error.strerror}") from error
        return burst

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """One system call a frame; a super-frame on a device without virtio header takes one for each segment, and the
        first refusal ends it."""
        try:
            if not self.vnet_header:
                self._write_plain(frame, gso)
            else:
                os.writev(self._fd, (PLAIN if gso is None else pack(gso, self.link_bytes), frame))
        except OSError as error:
            reason = _REFUSALS.get(error.errno or 0)
            if reason is None:
                raise
            return reason
        return None

    def _write_plain(self, frame: bytes | bytearray, gso: GsoHeader | None) -> None:
        if gso is None:
            os.write(self._fd, frame)
            return
        link = frame[: self.link_bytes]
        for piece in segment(bytearray(frame[self.link_bytes :]), gso):
            os.write(self._fd, link + piece)

    def close(self) -> None:
        """Close the descriptor: device, addresses and routes go with it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
