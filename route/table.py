"""The route table: one table, the longest prefix wins (RFC 1812 5.2.4.3).

For equal prefixes the order is: connected, route file, bypass, allowed_ips, announced, private, offload.
`RouteTable.__init__` enters them in that order, and the first entry stays. Two kinds of range are built in:

- never forwarded (RFC 1122 3.2.1.3, RFC 3927, RFC 1112, RFC 2644): `NEVER_FORWARDED`, and the edges of connected
  subnets. No entry inside them has any effect; the walk silently drops packets to them.
- private (RFC 1918, RFC 6598): `PRIVATE`, unreachable unless something longer, or of an earlier kind, names them.
  Offload entries inside them have no effect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypedDict

from route.engine import BEST, Engine, Lookup, prefixes_of
from route.intervals import EVERYTHING, intervals, key_of, nested, prefix_of
from route.lists import Prefix, parse_prefix

TAP0, TAP1, TUN0 = "tap0", "tap1", "tun0"
LOCAL = "local"  # an address of our own: answered, de-aliased, never routed
UNREACHABLE = "unreachable"  # ICMP 3/0, or silence where `RouteTable.is_never_forwarded`
_VPN = "vpn:"

BUILT_IN = "built-in"
DEFAULT_SOURCE = "vpn.node"

NEVER_FORWARDED = tuple(
    parse_prefix(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
PRIVATE = tuple(parse_prefix(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))


def vpn_target(node: str) -> str:
    """The target of packets to a node of the tunnel."""
    return _VPN + node


def node_of(target: str) -> str | None:
    """The node that a target names; None for every other target."""
    return target[len(_VPN) :] if target.startswith(_VPN) else None


class Route(NamedTuple):
    """The decision for an address: the longest prefix, its target and its source. `source`: `FILE:LINE`, `built-in`, or
    `vpn.node` where only the default node takes the address."""

    prefix: str
    target: str
    source: str


class Layer(NamedTuple):
    """Prefixes with one target and one origin. `entries`: (network, length, line); a line of 0 is not shown."""

    target: str
    source: str
    entries: Iterable[tuple[int, int, int]]


_Decision = tuple[str, str, int]
"""Target, source, and the line in it."""


class TargetTotal(TypedDict):
    """The share of one target: its prefixes in the table, and the addresses for which one of them is the longest."""

    target: str
    prefixes: int
    addresses: int


class Move(NamedTuple):
    """A prefix whose decision changes from one table to another."""

    prefix: str
    before: str
    after: str


class RouteTable:
    """One longest-prefix table, built whole, then only read: an update builds another and swaps it in. Two kinds come
    and go while it is used, and may change in it: what peers announce (`announce`), and the networks of a port whose
    address is leased (`connect`).

    `target(address)` is the hot path: a 32-bit integer in, the target out; it is the engine's own look-up function, so
    no Python frame is spent on it. The target of never forwarded ranges is `UNREACHABLE`. `engine`: `pytricia` or
    `plain`.

    Arguments: the layers of each kind, the earlier ones of a kind winning; `default`: where everything else goes
    (`UNREACHABLE`, or a node's target); `edges`: addresses that are never forwarded beside the built-in ranges.
    """

    __slots__ = (
        "_announced",
        "_beneath",
        "_change",
        "_connected",
        "_decisions",
        "_earlier",
        "_edges",
        "_first",
        "_leased_edges",
        "engine",
        "target",
    )

    def __init__(
        self,
        *,
        connected: Sequence[Layer] = (),
        route_files: Sequence[Layer] = (),
        bypass: Sequence[Layer] = (),
        allowed_ips: Sequence[Layer] = (),
        announced: Sequence[Layer] = (),
        offload: Sequence[Layer] = (),
        default: str = UNREACHABLE,
        edges: Collection[int] = (),
        engine: Engine = BEST,
    ) -> None:
        self._edges = frozenset(edges)
        self._leased_edges: frozenset[int] = frozenset()
        decisions: dict[int, _Decision] = {}
        _add(decisions, Layer(UNREACHABLE, BUILT_IN, [(*prefix, 0) for prefix in NEVER_FORWARDED]))
        _add(decisions, Layer(UNREACHABLE, BUILT_IN, [(address, 32, 0) for address in self._edges]))
        for layer in connected:
            _add(decisions, layer, without_effect=_NEVER_BY_OCTET)
        self._first = frozenset(decisions)
        for layer in (*route_files, *bypass, *allowed_ips):
            _add(decisions, layer, without_effect=_NEVER_BY_OCTET)
        self._earlier = frozenset(decisions)
        _add(decisions, Layer(UNREACHABLE, BUILT_IN, [(*prefix, 0) for prefix in PRIVATE]))
        for layer in offload:
            _add(decisions, layer, without_effect=_NEVER_OFFLOADED_BY_OCTET)
        _add(decisions, Layer(default, BUILT_IN if default == UNREACHABLE else DEFAULT_SOURCE, [(0, 0, 0)]))
        self._decisions = decisions
        self.engine: Engine = engine
        self._announced: dict[int, _Decision] = {}
        self._connected: dict[int, _Decision] = {}
        self._beneath: dict[int, _Decision | None] = {}  # by key of these two: the decision without them
        prefixes = prefixes_of({key: decision[0] for key, decision in decisions.items()}, engine)
        self.target: Lookup = prefixes.lookup
        self._change = prefixes.change
        if announced:
            self.announce(announced)

    def announce(self, layers: Sequence[Layer]) -> None:
        """Replace the announced layers. They rank behind `allowed_ips` and before the private ranges; 0.0.0.0/0 has no
        effect here. The time grows with the number of announced prefixes: with pytricia and 10,000 others beside them,
        a hundred take about 1 ms."""
        self._announced = {}
        for layer in layers:
            _add(self._announced, layer, without_effect=_NEVER_BY_OCTET)
        self._lay()

    def connect(self, layers: Sequence[Layer], edges: Collection[int] = ()) -> None:
        """Replace the layers of the lease. They rank behind the connected networks of the configuration and before the
        route files. `edges`: addresses of the leased subnet that are never forwarded."""
        self._leased_edges = frozenset(edges)
        self._connected = {}
        _add(self._connected, Layer(UNREACHABLE, BUILT_IN, [(address, 32, 0) for address in self._leased_edges]))
        for layer in layers:
            _add(self._connected, layer, without_effect=_NEVER_BY_OCTET)
        self._lay()

    def _lay(self) -> None:
        """Enter the announced and leased prefixes as they are now, and give the engine the targets that changed."""
        decisions = self._decisions
        before: dict[int, str | None] = {key: decisions[key][0] for key in self._beneath}
        for key, beneath in self._beneath.items():
            if beneath is None:
                del decisions[key]
            else:
                decisions[key] = beneath
        wanted = {key: self._announced[key] for key in self._announced.keys() - self._earlier - {EVERYTHING}}
        wanted |= {key: self._connected[key] for key in self._connected.keys() - self._first - {EVERYTHING}}
        self._beneath = {key: decisions.get(key) for key in wanted}
        for key, beneath in self._beneath.items():
            before.setdefault(key, beneath[0] if beneath is not None else None)
            decisions[key] = wanted[key]
        after = {key: decisions[key][0] if key in decisions else None for key in before}
        changed = {key: target for key, target in after.items() if target != before[key]}
        if changed:
            self._change(changed)

    def is_never_forwarded(self, address: int) -> bool:
        """True for 0/8, 127/8, 169.254/16, 224/4, 240/4 (255.255.255.255 with it) and the edges: silence, no error."""
        return is_never_forwarded(address) or address in self._edges or address in self._leased_edges

    def get(self, address: int) -> Route:
        """The decision for an address (32-bit integer) with its prefix and source. It is too slow for packets."""
        for length in range(32, -1, -1):
            key = key_of(address >> 32 - length << 32 - length, length)
            if key in self._decisions:
                break
        target, source, line = self._decisions[key]
        return Route(str(prefix_of(key)), target, f"{source}:{line}" if line else source)

    def entries(self) -> list[tuple[str, str]]:
        """Every prefix with its target, in order of address, shorter ones first: the whole table as text."""
        return [(str(prefix_of(key)), self._decisions[key][0]) for key in sorted(self._decisions)]

    def summary(self) -> list[TargetTotal]:
        """The share of each target, ordered by target. The addresses add up to 2^32."""
        totals: dict[str, TargetTotal] = {}
        for target, _, _ in self._decisions.values():
            totals.setdefault(target, {"target": target, "prefixes": 0, "addresses": 0})["prefixes"] += 1
        for start, end, key in intervals(self._decisions):
            totals[self._decisions[key][0]]["addresses"] += end - start
        return [totals[target] for target in sorted(totals)]

    def diff(self, other: RouteTable) -> list[Move]:
        """The prefixes of either table whose decision is another one in `other`, in order of address.

        A prefix stands for the addresses of which it is the longest in both tables together. Left out are prefixes that
        decide no address, and prefixes that only repeat the move of the prefix around them.
        """
        moves: list[Move] = []
        decided: dict[int, tuple[str, str]] = {}  # by key: the targets before and after
        said: dict[int, tuple[str, str] | None] = {}  # the same, of the closest prefix around that decides anything
        for key, parent, decides in nested(self._decisions.keys() | other._decisions.keys()):
            before = self._decisions[key][0] if key in self._decisions else decided[parent][0]
            after = other._decisions[key][0] if key in other._decisions else decided[parent][1]
            decided[key] = before, after
            around = said.get(parent)
            said[key] = (before, after) if decides else around
            if decides and before != after and around != (before, after):
                moves.append(Move(str(prefix_of(key)), before, after))
        return moves


def is_never_forwarded(address: int) -> bool:
    """True for an address (32-bit integer) in one of `NEVER_FORWARDED`."""
    ranges = _NEVER_BY_OCTET.get(address >> 24)
    return ranges is not None and any(address >> 32 - length << 32 - length == network for network, length in ranges)


def is_private(address: int) -> bool:
    """True for an address (32-bit integer) in one of `PRIVATE`."""
    return any(address >> 32 - length << 32 - length == network for network, length in PRIVATE)


def private_range(prefix: Prefix) -> Prefix | None:
    """The private or never forwarded range that holds a prefix, None where none does. An offload entry inside such a
    range has no effect."""
    for around in _NEVER_OFFLOADED_BY_OCTET.get(prefix.network >> 24, ()):
        if around.holds(prefix):
            return around
    return None


def _by_octet(ranges: Iterable[Prefix]) -> dict[int, list[Prefix]]:
    """The ranges by each first octet that they contain, so that one look-up excludes most of 10,000 entries."""
    found: dict[int, list[Prefix]] = {}
    for prefix in ranges:
        first = prefix.network >> 24
        for octet in range(first, first + (1 << max(8 - prefix.length, 0))):
            found.setdefault(octet, []).append(prefix)
    return found


_NEVER_BY_OCTET = _by_octet(NEVER_FORWARDED)
_NEVER_OFFLOADED_BY_OCTET = _by_octet(NEVER_FORWARDED + PRIVATE)


def _add(decisions: dict[int, _Decision], layer: Layer, without_effect: dict[int, list[Prefix]] | None = None) -> None:
    """Enter the prefixes of a layer that no earlier layer has named and that lie in no range of `without_effect`."""
    target, source, entries = layer
    ranges_by_octet = without_effect or {}
    for network, length, line in entries:
        key = network << 6 | length
        if key in decisions:
            continue
        if network >> 24 in ranges_by_octet:
            prefix = Prefix(network, length)
            if any(around.holds(prefix) for around in ranges_by_octet[network >> 24]):
                continue
        decisions[key] = target, source, line
