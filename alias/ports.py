"""The ports of our own address on one egress, for one protocol: who has which, which are free, which rest.

RFC 4787 4.2.1 and RFC 7857 9: a port is preserved where it is free, else drawn at random (`PortSpace.allocate`), in the
class of the inside port (REQ-3a: 0-1023, 1024-65535) and with its parity (4.2.2) as long as that has a free one. A port
has one owner, whatever the remotes are (REQ-3: no overloading). RFC 6888 REQ-8: a freed port rests for `REST_NS`; only
the inside endpoint that had it may have it back sooner. REQ-8 excepts TCP that was tracked until it closed: such a port
is free at once for the inside address that had it, which takes it where it wants that port or no other is free (row
C6). Identifiers of ICMP queries have neither class nor parity.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from alias.draws import Draws
from alias.types import Link
from wire.units import SECOND_NS

REST_NS = 120 * SECOND_NS
TRIES = 8
"""Random draws before the free ports are searched from a random place on."""

USED, _RESERVED, _RESTING = 1, 2, 4
PORTS = 65_536
_HALF = PORTS // 2  # even ports stand in the lower half of the map, odd ports in the upper, each in ascending order
_CLASS_EDGE = 1024 // 2
_KEY_MASK = (1 << 48) - 1


def endpoint_key(address: int, port: int) -> int:
    """An inside endpoint as one integer."""
    return address << 16 | port


class PortSpace:
    """One port space and its two indexes: `by_port` (outside port to link) and `by_inside` (`endpoint_key` to the link
    that this endpoint's packets take)."""

    __slots__ = (
        "_heard",
        "_map",
        "_reserved",
        "_resting",
        "_returning",
        "_spent",
        "by_inside",
        "by_port",
        "has_classes",
    )

    def __init__(self, *, has_classes: bool) -> None:
        """`has_classes`: TCP and UDP ports; False for identifiers of ICMP queries, of which 0 is one like any other."""
        self.has_classes = has_classes
        self.by_port: dict[int, Link] = {}
        self.by_inside: dict[int, Link] = {}
        self._map = bytearray(PORTS)
        self._reserved: frozenset[int] = frozenset()
        self._heard: frozenset[int] = frozenset()
        # Resting ports as `until << 64 | port << 48 | endpoint_key`: in order of time, and by their former owner.
        self._resting: deque[int] = deque()
        self._returning: dict[int, int] = {}
        # Of them those whose connection was closed, by `_host_class`: port to record, in order of time.
        self._spent: dict[int, OrderedDict[int, int]] = {}
        self.reserve(())

    def reserve(self, ports: Iterable[int]) -> None:
        """These ports, and no others, are never allotted; a link that has one keeps it. Port 0 is always among them."""
        for port in self._reserved:
            self._map[_place(port)] &= ~_RESERVED
        self._reserved = frozenset(ports) | self._heard | ({0} if self.has_classes else set())
        for port in self._reserved:
            self._map[_place(port)] |= _RESERVED

    def listen(self, port: int) -> None:
        """The gateway itself hears what comes for this port, which no link has or may get from now on."""
        self._heard |= {port}
        self._map[_place(port)] |= USED | _RESERVED

    @property
    def marks(self) -> bytearray:
        """The map itself, for readers: a byte for each port, the even ones first; `USED` says that a link has it, or
        the gateway listens there. It is never exchanged for another one, and keeps its length."""
        return self._map

    @property
    def left(self) -> int:
        """Of the ports from 1024 on (of the identifiers), how many are neither used nor resting nor reserved; fewer are
        said where others are among those."""
        low = 1024 if self.has_classes else 0
        return PORTS - low - len(self.by_port) - len(self._returning) - len(self._reserved)

    def allocate(self, key: int, wanted: int, draws: Draws, now: int, *, only_spent: bool = False) -> int | None:
        """A free port for the inside endpoint `key`, whose own port is `wanted`; None where its class is exhausted.
        `only_spent`: of those alone that rest after closed connections of the same inside address."""
        self._wake(now)
        marks = self._map
        record = self._returning.get(key)
        if record is not None and not only_spent:
            port = self._rise(record)
            if not marks[_place(port)]:
                return port
        place = _place(wanted)
        if not marks[place] and not only_spent:
            return wanted
        spent = self._spent.get(_host_class(key, wanted))
        if spent is not None and wanted in spent:
            self._rise(spent[wanted])
            if not marks[place]:
                return wanted
        port_drawn = None
        if not only_spent:
            port_drawn = self._draw_in_class(place, wanted, draws)
        while port_drawn is None and spent:
            port = self._rise(next(iter(spent.values())))
            port_drawn = None if marks[_place(port)] else port
        return port_drawn

    def _draw_in_class(self, place: int, wanted: int, draws: Draws) -> int | None:
        """A free port of the class of `wanted`, which stands at `place`; of the other parity where its own has none."""
        if not self.has_classes:
            return self._draw(0, PORTS, draws)
        half = place - place % _HALF
        low, high = (0, _CLASS_EDGE) if wanted < 1024 else (_CLASS_EDGE, _HALF)
        port_drawn = self._draw(half + low, half + high, draws)
        if port_drawn is None:
            half = _HALF - half
            port_drawn = self._draw(half + low, half + high, draws)
        return port_drawn

    def _draw(self, start: int, end: int, draws: Draws) -> int | None:
        """A free port from a range of the map."""
        marks, width = self._map, end - start
        for _ in range(TRIES):
            place = start + draws.below(width)
            if not marks[place]:
                return _port(place)
        somewhere = start + draws.below(width)
        place = marks.find(0, somewhere, end)
        if place < 0:
            place = marks.find(0, start, somewhere)
        return None if place < 0 else _port(place)

    def take(self, link: Link) -> None:
        """`link` owns its outside port. The port is free, or reserved for it."""
        self.by_port[link.outside_port] = link
        self._map[_place(link.outside_port)] |= USED

    def may_take(self, link: Link, now: int) -> bool:
        """Whether a link that was made elsewhere may own its outside port here."""
        self._wake(now)
        of_class = not self.has_classes or (link.inside_port < 1024) == (link.outside_port < 1024)
        return of_class and not self._map[_place(link.outside_port)]

    def rest(self, port: int, key: int, until_ns: int) -> None:
        """A free port was given back by `key` before our time. Calls come in the order of `until_ns`, before others."""
        if not self._map[_place(port)] and key not in self._returning:
            self._lay_down(port, key, until_ns)

    def _lay_down(self, port: int, key: int, until_ns: int) -> int:
        before = self._returning.get(key)
        if before is not None:  # one resting port an endpoint
            self._rise(before)
        record = until_ns << 64 | port << 48 | key
        self._map[_place(port)] |= _RESTING
        self._returning[key] = record
        self._resting.append(record)
        return record

    def give_back(self, link: Link, now: int, *, rest: bool) -> None:
        """The port of `link` is free again, after its `rest`."""
        port = link.outside_port
        del self.by_port[port]
        self._map[_place(port)] &= ~USED
        if rest:
            key = endpoint_key(link.inside, link.inside_port)
            record = self._lay_down(port, key, now + REST_NS)
            if link.closing:
                self._spent.setdefault(_host_class(key, port), OrderedDict())[port] = record

    def _wake(self, now: int) -> None:
        """The ports that have rested long enough are free for everyone."""
        resting = self._resting
        while resting and resting[0] >> 64 <= now:
            record = resting.popleft()
            if self._returning.get(record & _KEY_MASK) == record:
                self._rise(record)

    def _rise(self, record: int) -> int:
        """A port rests no more; which one it is."""
        port, key = record >> 48 & 0xFFFF, record & _KEY_MASK
        del self._returning[key]
        self._map[_place(port)] &= ~_RESTING
        host_class = _host_class(key, port)
        spent = self._spent.get(host_class)
        if spent is not None and spent.pop(port, None) is not None and not spent:
            del self._spent[host_class]
        return port


def _host_class(key: int, port: int) -> int:
    """The inside address of an endpoint, and whether a port is below 1024."""
    return key >> 16 << 1 | (port < 1024)


def _place(port: int) -> int:
    """Where in the map a port stands."""
    return port >> 1 | (port & 1) << 15


def _port(place: int) -> int:
    """Which port stands at a place of the map."""
    return (place << 1 | place >> 15) & 0xFFFF
