"""Whose an inner address is: the peers' `allowed_ips`, and beside them what peers announced at run time.

The tunnel asks the same of every packet that it opens (`tunnel.allowed`, WireGuard's cryptokey routing); here the walk
knows it too, so that `replay` and `trace` decide as the daemon does, and so that packets find their way to a peer.
A prefix of no length (0.0.0.0/0) says what a peer may send, and routes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from bridge.walk.settings import PeerSettings
from route.lists import Prefix
from route.table import UNREACHABLE, Layer, vpn_target
from tunnel.allowed import AllowedIps
from tunnel.effects import Network, PeerConfig

_NO_KEY = b""

Announced = Mapping[str, Sequence[Prefix]]
"""The prefixes that peers announced at run time, by peer; only those that the configuration lets them announce."""


class PeerPrefixes:
    """`allowed`: the prefixes of each peer, in the order of the configuration; `exits`: peers with `exit = true`."""

    def __init__(self, allowed: Mapping[str, Iterable[Prefix]], exits: Collection[str] = ()) -> None:
        self._allowed = {peer: tuple(prefixes) for peer, prefixes in allowed.items()}
        self._everywhere = tuple(peer for peer, held in self._allowed.items() if any(not one.length for one in held))
        self._exits = frozenset(exits)
        self.has_exits = bool(self._exits)
        self.announced: Announced = {}
        self._configured = {prefix for prefixes in self._allowed.values() for prefix in prefixes}
        self._narrow = AllowedIps(
            PeerConfig(peer, _NO_KEY, tuple(Network(*prefix) for prefix in prefixes if prefix.length))
            for peer, prefixes in self._allowed.items()
        )

    def announce(self, announced: Announced) -> None:
        """Put this in the place of what was announced before. Where `allowed_ips` of one peer and an announcement of
        another are one prefix, the configured owner stands alone."""
        self.announced = {peer: tuple(prefixes) for peer, prefixes in announced.items() if peer in self._allowed}
        self._narrow.announce(
            {
                Network(*prefix): peer
                for peer, prefixes in self.announced.items()
                for prefix in prefixes
                if prefix.length and prefix not in self._configured
            }
        )

    def may_send(self, peer: str, source: int) -> bool:
        """WireGuard's rule for an inner source: the longest prefix around it is the peer's. A node without a peer table
        (`replay` needs none) may send anything."""
        return peer not in self._allowed or peer in (self._narrow.owners(source) or self._everywhere)

    def owner(self, address: int) -> str | None:
        """The peer that packets for an inner address are routed to, None where nobody's prefix is around it."""
        owners = self._narrow.owners(address)
        return owners[0] if owners else None

    def exit_behind(self, address: int) -> str | None:
        """The peer that an address which nobody names belongs to: the first with `exit` that may send from anywhere."""
        return next((peer for peer in self._everywhere if peer in self._exits), None) if self._exits else None

    def has_exit(self, peer: str | None) -> bool:
        """True where the peer's packets may leave by our tap1."""
        return peer in self._exits


def peer_prefixes_from(peers: Iterable[PeerSettings]) -> PeerPrefixes:
    """The prefixes of configured peers; nobody's where a plain device stands in for the tunnel."""
    owning = [peer for peer in peers if peer.allowed_ips is not None]
    return PeerPrefixes(
        {peer.name: peer.allowed_ips or () for peer in owning}, [peer.name for peer in owning if peer.has_exit]
    )


def announced_layers(peers: Iterable[str], announced: Announced, *, has_tunnel: bool) -> list[Layer]:
    """The layers of `RouteTable.announce`: the announced prefixes in the order of the configured `peers`. Peers that
    are not configured are left out."""
    return [
        Layer(
            vpn_target(name) if has_tunnel else UNREACHABLE,
            f"announced by {name}",
            [(*prefix, 0) for prefix in announced[name]],
        )
        for name in peers
        if name in announced
    ]
