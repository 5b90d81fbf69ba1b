"""A lease as a value, and the checks that an offer must pass before the gateway asks for it.

RFC 2131 4.4.1 and RFC 2132 (what a lease holds): `judge`. RFC 2131 4.4.5 (T1 and T2, when the server names none):
`_times`. RFC 3442 (classless routes replace the routers of option 3): `_gateway`. RFC 4787 REQ-7 (an outside network
that overlaps the inside is refused): `LeaseLimits.taken`, rows U7 and D13.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from dhcp import options as option
from dhcp.message import Message
from dhcp.options import ClasslessRoute
from dhcp.settings import LeaseLimits, Subnet
from wire.units import prefix_mask

INFINITE_S: Final = 0xFFFFFFFF
LEAST_DURATION_S: Final = 4
LEAST_MTU_BYTES: Final = 576
_MOST_ROUTES: Final = 64
_MOST_SERVERS: Final = 8


class Refusal(StrEnum):
    """Why a lease is not taken; the values are words for people."""

    ADDRESS = "no host may have the address"
    MASK = "the netmask is none"
    EDGE = "the address is the subnet's network or broadcast address"
    OVERLAP = "its subnet overlaps one of ours"
    GATEWAY = "the gateway lies outside the subnet, and no classless route names it"
    TIME = "it has no lease time, or one that is too short to renew it"


class Lease(NamedTuple):
    """The address and options that a server granted. Addresses are integers, 0 for none; times are seconds from the
    request.

    `gateway`: the next hop of all that is not on the link, the operator's where he named one. `routes`: all classless
    routes, the default one included; empty where the server sent none. `mtu_bytes`: option 26, None where it is absent
    or out of range. `duration_s`, `renew_s`, `rebind_s`: None for an infinite lease.
    """

    address: int
    prefix_length: int
    gateway: int
    server: int
    duration_s: int | None
    renew_s: int | None = None
    rebind_s: int | None = None
    routes: tuple[ClasslessRoute, ...] = ()
    dns: tuple[int, ...] = ()
    domain: str | None = None
    mtu_bytes: int | None = None

    @property
    def network(self) -> int:
        """The subnet's first address."""
        return self.address & prefix_mask(self.prefix_length)


def judge(message: Message, limits: LeaseLimits) -> Lease | Refusal:
    """The lease that an OFFER or ACK holds, or why the gateway cannot live with it."""
    found = message.options
    address = message.yiaddr
    if not is_host(address):
        return Refusal.ADDRESS
    length = _prefix_length(found, address)
    if length is None:
        return Refusal.MASK
    lease = Lease(address, length, 0, message.server, None)
    refusal = conflict_of(lease, limits)
    if refusal is not None:
        return refusal
    routes = option.routes_in(found) or ()
    gateway = limits.gateway or _gateway(lease, routes, option.addresses_in(found, option.ROUTER))
    if gateway is None:
        return Refusal.GATEWAY
    duration_s = option.number_in(found, option.LEASE_TIME)
    if duration_s is None or duration_s < LEAST_DURATION_S:
        return Refusal.TIME
    renew_s, rebind_s = _times(found, duration_s)
    mtu_bytes = option.number_in(found, option.INTERFACE_MTU, 2) or 0
    return lease._replace(
        gateway=gateway,
        duration_s=None if duration_s == INFINITE_S else duration_s,
        renew_s=renew_s,
        rebind_s=rebind_s,
        routes=routes[:_MOST_ROUTES],
        dns=tuple(filter(is_host, option.addresses_in(found, option.DNS_SERVERS)))[:_MOST_SERVERS],
        domain=option.text_in(found, option.DOMAIN_NAME),
        mtu_bytes=mtu_bytes if LEAST_MTU_BYTES <= mtu_bytes <= limits.mtu_bytes else None,
    )


def conflict_of(lease: Lease, limits: LeaseLimits) -> Refusal | None:
    """Why the address of a lease does not go together with the gateway's other networks; None where it does.

    A lease that was fine may stop to be: a reload may give another port its subnet.
    """
    host_mask = prefix_mask(lease.prefix_length) ^ 0xFFFFFFFF
    if lease.prefix_length < 31 and lease.address & host_mask in (0, host_mask):
        return Refusal.EDGE
    if any(subnet.overlaps(lease.network, lease.prefix_length) for subnet in limits.taken):
        return Refusal.OVERLAP
    return None


def is_host(address: int) -> bool:
    """True for an address that a host or router may have: not 0/8, not loopback, no group, none of 240/4."""
    return 0 < address >> 24 < 224 and address >> 24 != 127


def _prefix_length(found: Mapping[int, bytes], address: int) -> int | None:
    """Of option 1; where it is absent, of the address's class, as hosts did before there were netmasks (RFC 950)."""
    if option.SUBNET_MASK not in found:
        return 8 if address >> 31 == 0 else 16 if address >> 30 == 0b10 else 24
    mask = option.number_in(found, option.SUBNET_MASK)
    if not mask:
        return None
    length = mask.bit_count()
    return length if prefix_mask(length) == mask else None


def _gateway(lease: Lease, routes: tuple[ClasslessRoute, ...], routers: tuple[int, ...]) -> int | None:
    """The server's next hop, 0 where it names none, None where it cannot be reached on the link.

    Where option 121 is there, option 3 is ignored. A next hop outside the subnet is on the link where a classless route
    without a router holds it, or where the subnet is the address alone.
    """
    default = [route.router for route in routes if route.prefix_length == 0]
    candidates = default if routes else [router for router in routers if router != lease.address]
    if not candidates or not candidates[0]:
        return 0
    gateway = candidates[0]
    if not is_host(gateway) or gateway == lease.address:
        return None
    on_link = lease.prefix_length == 32 or not (gateway ^ lease.network) & prefix_mask(lease.prefix_length)
    direct = (Subnet("", route.network, route.prefix_length) for route in routes if not route.router)
    return gateway if on_link or any(subnet.overlaps(gateway, 32) for subnet in direct) else None


def _times(found: Mapping[int, bytes], duration_s: int) -> tuple[int | None, int | None]:
    """T1 and T2: of options 58 and 59 where they are in order, else half and seven eighths of the lease."""
    if duration_s == INFINITE_S:
        return None, None
    renew_s = option.number_in(found, option.RENEWAL_TIME) or duration_s // 2
    rebind_s = option.number_in(found, option.REBINDING_TIME) or duration_s * 7 // 8
    if not 0 < renew_s < rebind_s < duration_s:
        renew_s, rebind_s = duration_s // 2, duration_s * 7 // 8
    return renew_s, rebind_s
