"""Our own addresses, in one place: the walk compares with them, and only `OwnAddresses.readdress` changes them."""

from __future__ import annotations

import random
from collections.abc import Mapping

from bridge.walk.interface import Interface
from bridge.walk.settings import PortSettings


class OwnAddresses:
    """`addresses`: all that we have. `edges`: network and broadcast addresses of our subnets. `host`: the address of
    the kernel behind tun0, 0 without tun0.

    `speaker` is the source of our messages into a tunnel without an address of ours: tap0's address, else tun0's, else
    tap1's. `speaker_to_host` is the source of our messages into tun0: tap0's address or, without a LAN, another one of
    ours. The host's own address is the last choice, because a kernel refuses packets from its own address.
    """

    def __init__(self, interfaces: Mapping[str, Interface]) -> None:
        self._interfaces = interfaces
        self.addresses: set[int] = set()
        self.edges: set[int] = set()
        self.host = interfaces["tun0"].address if "tun0" in interfaces else 0
        self.speaker = self.speaker_to_host = 0
        self._gather()

    def readdress(self, interface: Interface, port: PortSettings, rng: random.Random) -> None:
        """Give an interface another address, subnet and next hop; its neighbours are forgotten."""
        interface.set_address(port, rng)
        self._gather()

    def _gather(self) -> None:
        interfaces = self._interfaces
        self.addresses = {interface.address for interface in interfaces.values() if interface.address}
        self.edges = {edge for interface in interfaces.values() for edge in interface.edges}
        self.speaker = next((interfaces[name].address for name in ("tap0", "tun0", "tap1") if name in interfaces), 0)
        named = (interfaces[name].address for name in ("tap0", "tap1", "vpn", "tun0") if name in interfaces)
        self.speaker_to_host = next((address for address in named if address), 0)
