"""The plan of a device, for the process that makes it (`bridge.ports.netif`)."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.ports.base import PortKind


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device as the configuration wants it.

    `port`: the walk's name of it; `interface`: the kernel's. `own_mac`: the gateway's address on a tap, which the
    kernel must not have. `address`: `192.168.192.211/24` for a device whose address the kernel owns. `is_default`: it
    gets the routes `HALVES`.
    """

    port: str
    kind: PortKind
    interface: str
    mtu_bytes: int
    netns: str | None = None
    bridge: str | None = None
    own_mac: bytes | None = None
    address: str | None = None
    is_default: bool = False
