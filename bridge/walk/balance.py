"""What must be equal: every frame that came in has exactly one fate (docs/decisions/0034-one-fate-for-every-frame.md).

At every moment between two calls of the gateway, for each port:

    rx_packets == sent + answered + taken + held + dropped
    all drops counted at the port, by reason == dropped + refused + lost

and over all ports, of what the flow table repeated, frames in == frames out. `held` is counted from the stores: frames
that wait for a next hop, for the first fragment of their datagram, or for the rest of a datagram to us.

`difference(accounts(gateway))` says what is not, from the gateway; `difference(accounts_of(document))` from what
`bridgectl stats -j` says; `check` raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.walk.outgoing import Waiting

if TYPE_CHECKING:
    from bridge.walk.gateway import Gateway


class Unbalanced(AssertionError):
    """Frames are lost or counted twice: a bug of ours."""


class Account(NamedTuple):
    """One port's, in frames. `drops`: over all reasons. `repeated_in`, `repeated_out`: by the flow table."""

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
        """What became of frames that came in, by the public names."""
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


def held(gateway: Gateway) -> Counter[str]:
    """Frames in the stores, by the port that they came in by."""
    found: Counter[str] = Counter()
    for table in gateway.arp.values():
        for waiting in table.waiting():
            assert isinstance(waiting, Waiting)
            if waiting.arrival is not None and not waiting.arrival.is_ours:
                found[waiting.arrival.interface.name] += 1
    for arrival in gateway.fragments.held():
        found[arrival.interface.name] += 1
    for port, fragments in gateway.reassembly.held():
        found[port.partition(":")[0]] += fragments
    return found


def accounts(gateway: Gateway) -> dict[str, Account]:
    """Every port's, the flow table's part included as far as `FastPath.account` has heard of it."""
    waiting = held(gateway)
    drops: Counter[str] = Counter()
    for (name, _), number in gateway.counters.drops_by_port.items():
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
        for name, port in gateway.counters.ports.items()
    }


def accounts_of(document: Mapping[str, Any]) -> dict[str, Account]:
    """The same from a document of `stats`."""
    return {
        name: Account(
            document["ports"][name]["rx_packets"],
            **fates,
            drops=sum(document["drops_by_port"][name].values()),
            **document["fast_path"]["repeated"][name],
        )
        for name, fates in document["fates"].items()
    }


def missing(gateway: Gateway) -> dict[str, int]:
    """Frames that came in by a port and have no fate, where there are any."""
    return {name: account.missing for name, account in accounts(gateway).items() if account.missing > 0}


def difference(found: Mapping[str, Account], *, at_rest: bool = True) -> str:
    """What is not equal, a line each; empty where all is. `at_rest`: False while other threads repeat frames, which may
    have been counted in and not out yet."""
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


def check(gateway: Gateway) -> None:
    """`Unbalanced` with what is not equal."""
    gateway.fast.account()
    says = difference(accounts(gateway))
    if says:
        raise Unbalanced(says)
