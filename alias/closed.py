"""TCP links whose connection is over, the longest closed first: they give way where there is no room for a new link.

RFC 7857 2.2 keeps a closed connection for the transitory time, because late segments may come. RFC 6888 REQ-11 forbids
that a live link ends for a new one; a closed one may (row C6), as in Linux, VPP and libalias.

A link is closed in one of two ways (`Link.closing`). `FINISHED`: both FINs were sent and acknowledged; the link may
give way at once. `RESET`: a reset has passed; the link may give way once it has been quiet for `QUIET_NS`. An inside
host that did not mean the reset answers it at once (RFC 5961 3.2), and its answer brings the connection back.

Each closed link stands in two rows: one for all hosts, one for its host, egress and port class. Looking at the ends of
ten rows at most finds the link that was closed first, so a new link costs the same however many are closed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from alias.types import Egress, Link
from wire.units import SECOND_NS

QUIET_NS = SECOND_NS

OPEN, FINISHED, RESET = range(3)
"""`Link.closing`."""
_KINDS = (FINISHED, RESET)

Row = OrderedDict[Link, int]
"""Links in the order in which they closed, and since when each of them may give way."""


class Closed:
    """All closed links."""

    __slots__ = ("_all", "_of_hosts")

    def __init__(self) -> None:
        self._all: dict[int, Row] = {kind: OrderedDict() for kind in _KINDS}
        self._of_hosts: dict[int, Row] = {}  # by `_key`

    def __len__(self) -> int:
        return sum(map(len, self._all.values()))

    def judge(self, link: Link, closing: int, now: int) -> None:
        """The connections of `link` are closed as `closing` says. A link that was closed so before keeps its place."""
        if closing == link.closing:
            return
        self.forget(link)
        if closing == OPEN:
            return
        link.closing = closing
        since_ns = now + QUIET_NS if closing == RESET else now
        self._all[closing][link] = since_ns
        key = _key(link.inside, link.egress, is_low=link.inside_port < 1024, closing=closing)
        self._of_hosts.setdefault(key, OrderedDict())[link] = since_ns

    def forget(self, link: Link) -> None:
        """The link has ended, or a connection of it is open again."""
        if link.closing == OPEN:
            return
        del self._all[link.closing][link]
        key = _key(link.inside, link.egress, is_low=link.inside_port < 1024, closing=link.closing)
        row = self._of_hosts[key]
        del row[link]
        if not row:
            del self._of_hosts[key]
        link.closing = OPEN

    def longest(self, now: int) -> Link | None:
        """The link that has been closed for longest; None where no link may give way."""
        return _first(self._all.values(), now)

    def longest_of_host(self, inside: int, now: int) -> Link | None:
        """The same among the links of one inside address."""
        keys = [
            _key(inside, egress, is_low=is_low, closing=closing)
            for egress in Egress
            for is_low in (False, True)
            for closing in _KINDS
        ]
        return _first([self._of_hosts[key] for key in keys if key in self._of_hosts], now)

    def longest_of_class(self, inside: int, egress: Egress, now: int, *, is_low: bool) -> Link | None:
        """The same among those of its links on one egress whose ports are below 1024, or are not."""
        keys = [_key(inside, egress, is_low=is_low, closing=closing) for closing in _KINDS]
        return _first([self._of_hosts[key] for key in keys if key in self._of_hosts], now)


def _key(inside: int, egress: Egress, *, is_low: bool, closing: int) -> int:
    return inside << 4 | egress << 3 | is_low << 2 | closing


def _first(rows: Iterable[Row], now: int) -> Link | None:
    """Of the links that may give way, the one that was closed first."""
    first, first_ns = None, now + 1
    for row in rows:
        for link, since_ns in row.items():
            if since_ns < first_ns:
                first, first_ns = link, since_ns
            break
    return first
