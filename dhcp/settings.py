"""Settings of the DHCP client: how it presents itself, and which leases it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from wire.units import prefix_mask


class Subnet(NamedTuple):
    """A network that is in use elsewhere, and its name for people: `tap0`."""

    name: str
    network: int
    prefix_length: int

    def overlaps(self, network: int, prefix_length: int) -> bool:
        """True where one of both holds the other."""
        mask = prefix_mask(min(self.prefix_length, prefix_length))
        return not (self.network ^ network) & mask


class LeaseLimits(NamedTuple):
    """The bounds that the gateway's configuration sets for a lease.

    `taken`: networks that it must not overlap. `gateway`: the operator's next hop, which wins over the server's; 0
    where there is none. `mtu_bytes`: of the port, the upper bound of option 26.
    """

    taken: tuple[Subnet, ...] = ()
    gateway: int = 0
    mtu_bytes: int = 1500


NO_LIMITS: Final = LeaseLimits()


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How the client presents itself, and what it may accept.

    `mac`: six bytes. `hostname`, `client_id`, `vendor_class`: options 12, 61 and 60 as they are sent; empty: not sent.
    `options`: further ones, by code. `limits`: what a lease must fit.
    """

    mac: bytes
    hostname: bytes = b""
    client_id: bytes = b""
    vendor_class: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    limits: LeaseLimits = NO_LIMITS
