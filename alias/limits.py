"""How many links there may be, of all hosts and of one, and whether there is room for one more.

RFC 6888 REQ-4 (`max_links_per_host`, and a share for hosts with few links), REQ-11 (a refusal never costs a live link).
"""

from __future__ import annotations

from alias.ports import PORTS, PortSpace
from alias.types import AliasSettings
from wire.drop import Drop

KEPT = 4
"""The last quarter of links and ports is kept for hosts with few, see `Limits.refusal`."""


class Host:
    """An inside address and how many links it has, the static ones not counted. All its links share the one integer."""

    __slots__ = ("address", "links")

    def __init__(self, address: int) -> None:
        self.address = address
        self.links = 0


class Limits:
    """`count`: links that are not static, ended ones that nothing has cleared away yet included. `hosts`: those that
    have such links, by address."""

    __slots__ = ("count", "hosts", "settings")

    def __init__(self, settings: AliasSettings) -> None:
        self.settings = settings
        self.count = 0
        self.hosts: dict[int, Host] = {}

    def host(self, inside: int) -> Host:
        """The record of an inside address, which may be about to get its first link."""
        return self.hosts.get(inside) or Host(inside)

    def add(self, host: Host) -> None:
        """One more link."""
        self.count += 1
        host.links += 1
        self.hosts[host.address] = host

    def remove(self, inside: int) -> None:
        """A link of an inside address has ended."""
        self.count -= 1
        host = self.hosts[inside]
        host.links -= 1
        if not host.links:
            del self.hosts[inside]

    def refusal(self, inside: int, space: PortSpace | None) -> Drop | None:
        """The bound that one more link of an inside address would break.

        A share is kept for hosts with few links (RFC 6888 REQ-4 wants fairness, and one station can use every address
        of the LAN): the last `1 / KEPT` of all links, and of the ports of this protocol, are for hosts that hold less
        than an even part of it. So whoever takes all that he can get leaves that much for everybody else, and no live
        link ends for it (REQ-11). Where one host may have all links, nothing is kept for others.
        """
        refusal = self.exceeded(inside)
        settings = self.settings
        kept = settings.max_links // KEPT
        if refusal is not None or settings.max_links_per_host >= settings.max_links:
            return refusal
        if self._held(inside) >= max(kept // settings.hosts, 1):
            if settings.max_links - self.count <= kept:
                return Drop.ALIAS_TABLE_FULL
            if space is not None and space.left <= PORTS // KEPT:
                return Drop.ALIAS_NO_PORT
        return None

    def exceeded(self, inside: int) -> Drop | None:
        """The bound that holds for every link, old or new."""
        if self._held(inside) >= self.settings.max_links_per_host:
            return Drop.ALIAS_HOST_LIMIT
        return Drop.ALIAS_TABLE_FULL if self.count >= self.settings.max_links else None

    def _held(self, inside: int) -> int:
        host = self.hosts.get(inside)
        return 0 if host is None else host.links
