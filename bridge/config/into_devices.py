"""The kernel devices that a configuration asks for."""

from __future__ import annotations

from bridge.config.load import Config
from bridge.ports.plan import DevicePlan


def bridges_of(config: Config) -> list[tuple[str, str | None]]:
    """The bridges that taps join, each with the network namespace that it is in."""
    return [(plan.bridge, plan.netns) for plan in plans_from(config) if plan.bridge is not None]


def plans_from(config: Config) -> list[DevicePlan]:
    """The devices in the order tap0, tap1, tun0, vpn.

    Only tun0 gets an address in the kernel: the gateway itself owns tap0's and tap1's. The operator configures the
    kernel side of a raw IP tap1 and of a plain vpn device.
    """
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
