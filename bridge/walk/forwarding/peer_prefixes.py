"""The owner of an inner address: the peers' `allowed_ips`, and beside them what peers announce at run time.

The tunnel asks the same of every packet that it opens (`tunnel.allowed`, WireGuard's cryptokey routing). The walk knows
it too, so that `replay` and `trace` decide as the daemon does, and so that packets find their way to a peer. The prefix
0.0.0.0/0 says what a peer may send, and routes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bridge.walk.settings import PeerSettings
from route.lists import Prefix
from route.table import UNREACHABLE, Layer, vpn_target
from tunnel.allowed import AllowedIps
from tunnel.effects import Network, PeerConfig

_NO_KEY = b""

Announced = Mapping[str, Sequence[Prefix]]
"""The prefixes that peers announced at run time, by peer; only those that the configuration lets them announce."""


class PeerPrefixes:
    """One object for the gateway's life: a reload and an announcement change it in place, so that all who hold it see
    the same owners. `announced`: the prefixes that configured peers announced."""

    def __init__(self, peers: Iterable[PeerSettings] = ()) -> None:
        self.announced: Announced = {}
        self.reconfigure(peers)

    def reconfigure(self, peers: Iterable[PeerSettings]) -> None:
        """Take other peers. Announcements of peers that stay are kept."""
        owning = {peer.name: peer for peer in peers if peer.allowed_ips is not None}
        self._allowed = {name: peer.allowed_ips or () for name, peer in owning.items()}
        self._everywhere = tuple(name for name, held in self._allowed.items() if any(not one.length for one in held))
        self._exits = frozenset(name for name, peer in owning.items() if peer.has_exit)
        self.has_exits = bool(self._exits)
        self._configured = {prefix for prefixes in self._allowed.values() for prefix in prefixes}
        self._narrow = AllowedIps(
            PeerConfig(peer, _NO_KEY, tuple(Network(*prefix) for prefix in prefixes if prefix.length))
            for peer, prefixes in self._allowed.items()
        )
        self._set_announced(self.announced)

    def announce(self, announced: Announced) -> bool:
        """Put these prefixes in the place of those announced before; False where nothing changed. A prefix that is in
        another peer's `allowed_ips` stays with its configured owner alone."""
        before = self.announced
        self._set_announced(announced)
        return self.announced != before

    def _set_announced(self, announced: Announced) -> None:
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
        """The peer that packets for an inner address are routed to; None where no peer's prefix is around it."""
        owners = self._narrow.owners(address)
        return owners[0] if owners else None

    def exit_behind(self, address: int) -> str | None:
        """The peer that an address belongs to which no prefix names: the first with `exit` that may send from
        anywhere."""
        return next((peer for peer in self._everywhere if peer in self._exits), None) if self._exits else None

    def has_exit(self, peer: str | None) -> bool:
        """True where the peer's packets may leave by our tap1."""
        return peer in self._exits


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
