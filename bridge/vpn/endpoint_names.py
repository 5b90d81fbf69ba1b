"""Peers whose endpoint is a host name: when a name is looked up, and which of its addresses is used.

A name is looked up when it is configured, and again when calls to its peer stay without an answer. The first address
that the resolver gives is used; after calls in vain, the one behind the address in use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from bridge.config.into_tunnel import NamedEndpoint
from bridge.loop.loop import Loop
from bridge.vpn.resolver import OnResolved
from tunnel.effects import Endpoint

log = logging.getLogger(__name__)

RESOLVE_AGAIN_S = 30.0
"""A name without an address is looked up again after this time."""

Resolve = Callable[[str, OnResolved], None]


class OnFound(Protocol):
    """Takes the endpoint of a peer. `must_call`: the peer is to be called at once."""

    def __call__(self, peer: str, endpoint: Endpoint, *, must_call: bool) -> None:
        """The peer is at this endpoint."""


class EndpointNames:
    """`resolve`: looks a host up, and answers later, in the loop; `endpoint_of`: the endpoint of a peer in use, or
    None; `found`: takes another one."""

    def __init__(
        self, loop: Loop, resolve: Resolve, endpoint_of: Callable[[str], Endpoint | None], found: OnFound
    ) -> None:
        self._loop = loop
        self._resolve = resolve
        self._endpoint_of = endpoint_of
        self._found = found
        self._names: dict[str, NamedEndpoint] = {}
        self._asked: set[str] = set()
        self._to_call: set[str] = set()  # of these, the peers to call once they are found

    def configure(self, names: Mapping[str, NamedEndpoint]) -> None:
        """Take over the names, by peer. Those that are new or others than before are looked up."""
        before, self._names = self._names, dict(names)
        for peer, named in self._names.items():
            if before.get(peer) != named:
                self.look_up(peer)

    def call_once_found(self, peers: Iterable[str]) -> None:
        """Call these peers as soon as a look-up that is under way finds them."""
        self._to_call = self._asked.intersection(peers)

    def look_up(self, peer: str) -> None:
        """Look the name of a peer up. Nothing happens where it has none, or where a look-up is under way."""
        named = self._names.get(peer)
        if named is not None and peer not in self._asked:
            self._asked.add(peer)
            self._resolve(named[0], partial(self._answered, peer, named))

    def _answered(self, peer: str, named: NamedEndpoint, addresses: Sequence[bytes]) -> None:
        self._asked.discard(peer)
        if self._names.get(peer) != named:  # a reload came in between
            self.look_up(peer)
            return
        known = self._endpoint_of(peer)
        if not addresses:
            log.warning("the name %s of %s has no address at present", named[0], peer)
            if known is None:
                self._loop.call_later(RESOLVE_AGAIN_S, partial(self.look_up, peer))
            return
        in_use = addresses.index(known.address) if known is not None and known.address in addresses else -1
        must_call = peer in self._to_call
        self._to_call.discard(peer)
        endpoint = Endpoint(addresses[(in_use + 1) % len(addresses)], named[1])
        self._found(peer, endpoint, must_call=must_call)
