"""The losses of a flow, from the records of both its ends. No input or output: records in, figures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trials.traffic.lasting import StreamArrival, TalkerEvent, TalkerEventKind

MILLISECOND_NS = 1_000_000


@dataclass(frozen=True)
class Window:
    """When the cause began and when it was gone (monotonic ns). `since_ns`: what was sent earlier is not counted."""

    since_ns: int
    began_ns: int
    over_ns: int


@dataclass(frozen=True)
class FlowLosses:
    """One flow's datagrams. `refused` by the sender's own kernel, so that they never left; `told`: ICMP errors that
    the sender heard. Of what left: `lost_there` did not arrive, the echo of `lost_back` did not come back.
    `after_ms`: from the end of the cause to the first echo of a datagram that was sent behind it, None where none
    came. `strays`: lost although they were sent well before the cause, or after the flow was well again."""

    flow: str
    sent: int
    refused: int
    told: int
    lost_there: int
    lost_back: int
    duplicated: int
    late: int
    gap_ms: float
    after_ms: float | None
    strays: int

    @property
    def lost(self) -> int:
        """Both ways together."""
        return self.lost_there + self.lost_back


def account(
    flow: str, happened: Sequence[TalkerEvent], arrived: Sequence[StreamArrival], window: Window, margin_ns: int
) -> FlowLosses:
    """`margin_ns`: what was sent so long before the cause began may still have been on its way then, and what was sent
    so long behind the first answer may still be overtaken by it."""
    sent = {
        one.number: one.at_ns for one in happened if one.kind is TalkerEventKind.SENT and one.at_ns >= window.since_ns
    }
    there = [one.number for one in arrived if one.number in sent]
    back = [one for one in happened if one.kind is TalkerEventKind.ANSWERED and one.number in sent]
    numbers_back = [one.number for one in back]
    at_server, at_talker = set(there), set(numbers_back)
    again = [one.at_ns for one in back if sent[one.number] >= window.over_ns]
    well_ns = min(again, default=None)
    lost = [number for number in sent if number not in at_talker]
    return FlowLosses(
        flow=flow,
        sent=len(sent),
        refused=_count(happened, TalkerEventKind.REFUSED, window),
        told=_count(happened, TalkerEventKind.TOLD, window),
        lost_there=len(sent) - len(at_server),
        lost_back=len(at_server - at_talker),
        duplicated=len(there) - len(at_server) + len(numbers_back) - len(at_talker),
        late=_late(there) + _late(numbers_back),
        gap_ms=_longest_gap_ns(one.at_ns for one in back) / MILLISECOND_NS,
        after_ms=None if well_ns is None else (well_ns - window.over_ns) / MILLISECOND_NS,
        strays=sum(
            sent[number] < window.began_ns - margin_ns or (well_ns is not None and sent[number] > well_ns + margin_ns)
            for number in lost
        ),
    )


def _count(happened: Iterable[TalkerEvent], kind: TalkerEventKind, window: Window) -> int:
    return sum(one.kind is kind and one.at_ns >= window.since_ns for one in happened)


def _late(numbers: Iterable[int]) -> int:
    """Those that came behind one that was sent later; a repeated one is not late."""
    late, newest, seen = 0, -1, set[int]()
    for number in numbers:
        late += number < newest and number not in seen
        seen.add(number)
        newest = max(newest, number)
    return late


def _longest_gap_ns(times: Iterable[int]) -> int:
    ordered = sorted(times)
    return max((later - earlier for earlier, later in pairwise(ordered)), default=0)
