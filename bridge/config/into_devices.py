"""Which kernel devices a configuration wants, and which of its keys cannot change while they exist."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.config.load import Config
from bridge.config.model import Table
from bridge.ports.plan import DevicePlan


def plans_from(config: Config) -> list[DevicePlan]:
    """The devices in the order tap0, tap1, tun0, vpn. The kernel gets an address for tun0 only: tap0's and tap1's are
    the gateway's own; the kernel side of a raw IP tap1 and of a plain vpn device is the operator's to configure."""
    plans = []
    if config.tap0 is not None:
        tap0 = config.tap0
        plans.append(
            DevicePlan("tap0", "tap", tap0.interface, tap0.mtu, tap0.netns, bridge=tap0.bridge, own_mac=tap0.mac)
        )
    if config.tap1 is not None:
        tap1 = config.tap1
        is_tap = tap1.kind == "tap"
        plans.append(
            DevicePlan(
                "tap1",
                tap1.kind,
                tap1.interface,
                tap1.mtu,
                tap1.netns,
                bridge=tap1.bridge if is_tap else None,
                own_mac=tap1.mac if is_tap else None,
            )
        )
    if config.tun0 is not None:
        tun0 = config.tun0
        plans.append(
            DevicePlan(
                "tun0",
                "tun",
                tun0.interface,
                config.tun0_mtu,
                tun0.netns,
                address=str(tun0.address),
                is_default=tun0.default_route,
            )
        )
    if config.vpn is not None and config.vpn.interface is not None:
        plans.append(DevicePlan("vpn", "tun", config.vpn.interface, config.vpn.mtu, config.vpn.netns))
    return plans


_FIXED = {
    "tap0": ("address", "mac", "mtu", "bridge", "netns", "interface", "arp_timeout"),
    "tap1": ("kind", "mac", "mtu", "bridge", "netns", "interface", "arp_timeout"),
    "tun0": ("address", "default_route", "netns", "interface"),
    "vpn": ("address", "mtu", "interface", "netns"),
    "tunnel": ("private_key_file", "listen_port", "state_file", "threads"),
    "alias": ("state_file",),
    "control": ("socket", "group", "metrics"),
    "fast_path": ("threads", "police"),
    "hooks": ("up", "down"),
    "process": ("user", "confine"),
}


def changed_for_good(running: Config, wanted: Config) -> Iterator[str]:
    """The keys that differ between two configurations and cannot change without a restart, as `tap0.address`: they are
    built into devices, ARP tables and sockets. A table that comes or goes is named alone."""
    for table, keys in _FIXED.items():
        now, then = getattr(running, table), getattr(wanted, table)
        if (now is None) != (then is None):
            yield table
        elif now is not None:
            yield from (f"{table}.{key}" for key in keys if _differs(now, then, key))
    if running.tap1 is not None and wanted.tap1 is not None:
        if running.leases_tap1 != wanted.leases_tap1:
            yield "tap1.address"
        if running.tap1.dhcp.state_file != wanted.tap1.dhcp.state_file:
            yield "tap1.dhcp.state_file"


def _differs(now: Table, then: Table, key: str) -> bool:
    """A MAC address that nobody wrote down is made from the port's address; one that is in use stays as it is."""
    if key == "mac" and not {"mac"} & (now.model_fields_set | then.model_fields_set):
        return False
    return bool(getattr(now, key) != getattr(then, key))
