"""The law of the counters: every frame that came in has exactly one fate (decision record 0034).

At every moment between two calls of the gateway, for each port:

    rx_packets == sent + answered + taken + held + dropped
    all drops counted at the port, by reason == dropped + refused + lost

and over all ports, of what the flow table repeated, frames in == frames out. `held` is counted from the stores: frames
that wait for a next hop, for the first fragment of their datagram, or for the rest of a datagram to us.

`difference(accounts(gateway))` says in words which numbers differ, `difference(accounts_of(document))` does so for the
document of `bridgectl stats -j`, and `check` raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from bridge.walk.counters import Counters
from bridge.walk.outcome import Resident


class Balanced(Protocol):
    """The gateway, as far as its law needs it."""

    @property
    def counters(self) -> Counters:
        """All counters, right at this moment."""

    @property
    def residents(self) -> Iterable[Resident]:
        """All that keeps frames."""


class Unbalanced(AssertionError):
    """Frames are lost or counted twice: a bug of ours."""


class Account(NamedTuple):
    """One port's numbers, in frames; see `PortCounters`. `held`: frames in the stores; `drops`: over all reasons."""

    rx_packets: int
    sent: int
    answered: int
    taken: int
    held: int
    dropped: int
    refused: int
    lost: int
    drops: int
    repeated_in: int
    repeated_out: int

    @property
    def fates(self) -> dict[str, int]:
        """The fates of frames that came in, by their public names."""
        return {
            "sent": self.sent,
            "answered": self.answered,
            "taken": self.taken,
            "held": self.held,
            "dropped": self.dropped,
        }

    @property
    def missing(self) -> int:
        """Frames that came in and have no fate; below zero: that have more than one."""
        return self.rx_packets - sum(self.fates.values())


def held(gateway: Balanced) -> Counter[str]:
    """Frames in the stores, by the interface that they came in by."""
    return Counter(name for resident in gateway.residents for name in resident.held())


def accounts(gateway: Balanced) -> dict[str, Account]:
    """The account of every port."""
    waiting, counters = held(gateway), gateway.counters
    drops: Counter[str] = Counter()
    for (name, _), number in counters.drops_by_port.items():
        drops[name] += number
    return {
        name: Account(
            port.rx_packets,
            port.sent,
            port.answered,
            port.taken,
            waiting[name],
            port.dropped,
            port.refused,
            port.lost,
            drops[name],
            port.repeated_in,
            port.repeated_out,
        )
        for name, port in counters.ports.items()
    }


def accounts_of(document: Mapping[str, Any]) -> dict[str, Account]:
    """The account of every port from a document of `stats`. `KeyError` where it is no such document."""
    return {
        name: Account(
            document["ports"][name]["rx_packets"],
            **fates,
            drops=sum(document["drops_by_port"][name].values()),
            **document["fast_path"]["repeated"][name],
        )
        for name, fates in document["fates"].items()
    }


def missing(gateway: Balanced) -> dict[str, int]:
    """Frames that came in by a port and have no fate, where there are any."""
    return {name: account.missing for name, account in accounts(gateway).items() if account.missing > 0}


def difference(found: Mapping[str, Account], *, at_rest: bool = True) -> str:
    """One line for each pair of numbers that must be equal and are not; empty where all are. `at_rest`: False while
    other threads repeat frames, which may be counted in and not yet counted out."""
    says = []
    for name, account in found.items():
        if account.missing:
            fates = ", ".join(f"{fate} {number}" for fate, number in account.fates.items())
            says.append(f"{name}: {account.rx_packets} frames in, {account.missing:+} without a fate: {fates}")
        told = account.dropped + account.refused + account.lost
        if account.drops != told:
            says.append(f"{name}: {account.drops} drops by reason, {told} by kind: {account}")
    ways = sum(account.repeated_in for account in found.values()), sum(one.repeated_out for one in found.values())
    if at_rest and ways[0] != ways[1]:
        says.append(f"{ways[0]} frames were repeated, and {ways[1]} frames left for it")
    return "\n".join(says)


def check(gateway: Balanced) -> None:
    """Raise `Unbalanced` with the numbers that differ, where some do."""
    says = difference(accounts(gateway))
    if says:
        raise Unbalanced(says)
