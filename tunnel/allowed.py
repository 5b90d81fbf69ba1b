"""Cryptokey routing: which peer an inner address belongs to, both ways.

The longest prefix decides, whether the operator wrote it (`allowed_ips`) or a peer announced it. Several peers may have
the same configured prefix (two nodes that both carry 0.0.0.0/0): each of them may send from it, and the first in the
order of the configuration gets packets that are routed by prefix alone. An announced prefix has one owner.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from operator import itemgetter

from tunnel.effects import Network, PeerConfig
from wire.drop import Drop

_BITS = {4: 32, 6: 128}
_IPV4_HEADER_BYTES = 20
_IPV6_HEADER_BYTES = 40

Owners = tuple[str, ...]


class AllowedIps:
    """The prefixes of all peers. Built whole, a reload builds another one; only announced prefixes come and go.

    Raises `ValueError` where a prefix has host bits or an impossible length.
    """

    __slots__ = ("_announced", "_by_length")

    def __init__(self, peers: Iterable[PeerConfig]) -> None:
        tables: dict[int, dict[int, dict[int, Owners]]] = {4: {}, 6: {}}
        for peer in peers:
            for prefix in peer.allowed_ips:
                _check(prefix)
                shift = _BITS[prefix.version] - prefix.length
                owners = tables[prefix.version].setdefault(shift, {})
                key = prefix.network >> shift
                if peer.name not in owners.get(key, ()):
                    owners[key] = (*owners.get(key, ()), peer.name)
        # The longest prefix is the smallest shift.
        self._by_length = {version: sorted(table.items()) for version, table in tables.items()}
        self._announced: dict[Network, str] = {}

    def announce(self, announced: Mapping[Network, str]) -> None:
        """Put these IPv4 prefixes, each with its peer, in the place of those announced before.

        None of them is a configured prefix. The cost depends on the number of announced prefixes alone.
        """
        tables = self._by_length[4]
        by_shift = dict(tables)
        for prefix in self._announced.keys() - announced.keys():
            shift = 32 - prefix.length
            del by_shift[shift][prefix.network >> shift]
        for prefix, peer in announced.items():
            shift = 32 - prefix.length
            if shift not in by_shift:
                by_shift[shift] = {}
                insort(tables, (shift, by_shift[shift]), key=itemgetter(0))
            by_shift[shift][prefix.network >> shift] = (peer,)
        self._announced = dict(announced)

    def configured_around(self, prefix: Network) -> Owners:
        """The peers whose configured prefix is the longest that holds an IPv4 prefix, or is it; none where only one of
        no length does: 0.0.0.0/0 permits sources, and routes nothing."""
        for shift, table in self._by_length[4]:
            if not 32 - prefix.length <= shift < 32:
                continue
            found = table.get(prefix.network >> shift)
            if found is not None and Network(prefix.network >> shift << shift, 32 - shift) not in self._announced:
                return found
        return ()

    def owners(self, address: int, version: int = 4) -> Owners:
        """The peers whose prefix is the longest around the address; none where nobody has one."""
        for shift, table in self._by_length[version]:
            found = table.get(address >> shift)
            if found is not None:
                return found
        return ()

    def admit(self, plain: bytes, peer: str) -> bytes | Drop:
        """The inner packet of an opened message without its padding, if the peer may send it; `plain` is not empty."""
        version = plain[0] >> 4
        if version == 4:
            if len(plain) < _IPV4_HEADER_BYTES:
                return Drop.TUNNEL_INNER_MALFORMED
            total = plain[2] << 8 | plain[3]
            if not _IPV4_HEADER_BYTES <= total <= len(plain):
                return Drop.TUNNEL_INNER_MALFORMED
            source = int.from_bytes(plain[12:16], "big")
        elif version == 6:
            if len(plain) < _IPV6_HEADER_BYTES:
                return Drop.TUNNEL_INNER_MALFORMED
            total = _IPV6_HEADER_BYTES + (plain[4] << 8 | plain[5])
            if total > len(plain):
                return Drop.TUNNEL_INNER_MALFORMED
            source = int.from_bytes(plain[8:24], "big")
        else:
            return Drop.TUNNEL_INNER_MALFORMED
        if peer not in self.owners(source, version):
            return Drop.TUNNEL_INNER_SOURCE
        return plain if total == len(plain) else plain[:total]


def _check(prefix: Network) -> None:
    bits = _BITS.get(prefix.version)
    if bits is None or not 0 <= prefix.length <= bits:
        raise ValueError(f"an impossible prefix: {prefix}")
    if prefix.network < 0 or prefix.network >> bits or prefix.network & (1 << bits - prefix.length) - 1:
        raise ValueError(f"a prefix with host bits: {prefix}")
