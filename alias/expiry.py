"""When links expire: a calendar of seconds, and a heap for the second that has begun.

A link is put in once, for the expiry that it has then. Refreshing a link only moves its `expires_ns`: when its second
comes and it has been refreshed since, it is put in again. An expiry that moves *closer* is told with `arm`. A link in a
far second costs one list entry, which is what 65,536 of them can afford; only those of the current second are sorted.

What a link leaves behind when its expiry moves closer, or when it ends, would keep it in memory until that second comes
(two hours, for a connection that was established). Once more than half of the entries are such, they are swept out.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from alias.types import Bucket, Link
from wire.units import SECOND_NS

SWEEP_FROM = 1024
"""Entries of the past that are never worth a sweep."""


class Expiry:
    """The calendar. `expires_ns` of a link is the truth; what stands here is never later than it."""

    __slots__ = ("_buckets", "_far", "_most", "_near", "_order", "_ticket", "_turned")

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self._order: list[int] = []  # a heap of the seconds that have a bucket
        self._near: list[tuple[int, int, Link]] = []  # (when, ticket, link): a heap of the links of the second begun
        self._ticket = count()  # equal times: first come, first served; links are never compared
        self._turned = -1  # the last second whose bucket was emptied
        self._far = 0  # entries in buckets
        self._most = SWEEP_FROM  # beyond so many they are swept

    def __len__(self) -> int:
        """Entries, those of the past that nothing has swept out yet included."""
        return self._far + len(self._near)

    def arm(self, link: Link) -> None:
        """Look at `link` at its `expires_ns`: for a new link, and where its expiry has moved closer."""
        when = link.expires_ns
        second = when // SECOND_NS
        if second <= self._turned:
            link.due = None
            heappush(self._near, (when, next(self._ticket), link))
            return
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = Bucket(second, when)
            heappush(self._order, second)
        elif when < bucket.earliest_ns:
            bucket.earliest_ns = when
        if link.due is not bucket:
            link.due = bucket
            bucket.links.append(link)
            self._far += 1
            if self._far > self._most:
                self._sweep()

    def due(self, now: int) -> list[Link]:
        """The links with `expires_ns <= now`, in the order of their expiry. They are out of the calendar."""
        while self._order and self._buckets[self._order[0]].earliest_ns <= now:
            self._turn(self._buckets.pop(heappop(self._order)))
        expired: dict[Link, None] = {}  # a link that was refreshed and then armed again may stand here twice
        near = self._near
        while near and near[0][0] <= now:
            link = heappop(near)[2]
            if not link.expires_ns or link.due is not None:
                continue  # it has ended, or this entry is older than its place in a later second
            if link.expires_ns <= now:
                expired[link] = None
            else:
                self.arm(link)
        return list(expired)

    def _turn(self, bucket: Bucket) -> None:
        """The second of a bucket begins: sort what is due in it, put the rest where it belongs now."""
        self._turned = max(self._turned, bucket.second)
        self._far -= len(bucket.links)
        for link in bucket.links:
            if link.due is bucket:  # else it was armed for an earlier second, or has ended
                link.due = None
                self.arm(link)

    def _sweep(self) -> None:
        """Drop the entries that say nothing any more. Each sweep is paid for by as many calls of `arm`."""
        for bucket in self._buckets.values():
            bucket.links = [link for link in bucket.links if link.due is bucket]
        self._far = sum(len(bucket.links) for bucket in self._buckets.values())
        self._most = 2 * self._far + SWEEP_FROM

    def next_deadline(self) -> int | None:
        """The time of the next entry: at or before the first expiry; None where there is no link."""
        near = self._near[0][0] if self._near else None
        if not self._order:
            return near
        far = self._buckets[self._order[0]].earliest_ns
        return far if near is None or far < near else near
