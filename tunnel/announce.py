"""Announced prefixes: which networks a node says lie behind it, and how much of that its peer takes.

Each end tells the other its whole list with every new session, and after a change; it repeats that until an answer with
the same number came, `ATTEMPTS` times at most: loss does not matter, and a plain WireGuard peer, which never answers,
is left alone until the next session. A list replaces the one before; the empty one withdraws everything.

*Order.* Numbers grow within a run of the teller's process; `run` names that run. Of the same run the greater number
counts, whatever session it came under; another run counts where its session is a newer one. So neither a datagram that
is late nor one of a process that has ended brings an old list back.

*Life.* A list lives as long as the peer's keys. It is also withdrawn where data comes under a newer session and the
list is not told again within `RENEW_NS`: the node has started anew and announces nothing any more.

*Taking.* `fault_of` says what is wrong with a prefix by itself; `shared_out` who gets one that several peers announce.
The answer has a byte for each prefix (`Verdict`), so that the teller's operator sees what became of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tunnel.allowed import AllowedIps
from tunnel.control import Control, ControlKind
from tunnel.effects import SHORTEST_ANNOUNCED, Network, Networks, PeerConfig, Verdict
from wire.drop import Drop
from wire.units import SECOND_NS

RUN_BYTES: Final = 8
PREFIX: Final = struct.Struct("!BI")
MOST_PREFIXES: Final = 200
"""Of one list: the message has 1,016 bytes at most, which any path takes that carries 1,280."""
ATTEMPTS: Final = 6
FIRST_PAUSE_NS: Final = SECOND_NS
"""The pauses between attempts double: the last one leaves 31 s after the first."""
RENEW_NS: Final = 60 * SECOND_NS
LISTS_AT_ONCE: Final = 4
LIST_PAUSE_NS: Final = 10 * SECOND_NS
"""Other lists than the one held: that many at once, and another one for each pause. The same of other answers."""
_NUMBERS: Final = 1 << 32


class Offer(NamedTuple):
    """What we tell every peer. `run`: random bytes of this process; `number`: one more with each change."""

    run: bytes = bytes(RUN_BYTES)
    number: int = 0
    networks: tuple[Network, ...] = ()


class _Changes:
    """How often a peer may say something else than before: each time somebody is told of it, and routes may move."""

    __slots__ = ("_left", "_since_ns")

    def __init__(self) -> None:
        self._left = LISTS_AT_ONCE
        self._since_ns: int | None = None  # what `_left` has not grown for

    def may_be(self, now: int) -> bool:
        """Count one; False where it was one too many."""
        since = now if self._since_ns is None else self._since_ns
        grown, rest = divmod(now - since, LIST_PAUSE_NS)
        self._left = min(LISTS_AT_ONCE, self._left + grown)
        self._since_ns = now - rest
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Telling:
    """What we tell one peer, how often, and what it answered.

    `answers`: a verdict for each prefix of the offer, None until the peer has answered to it.
    """

    __slots__ = ("_attempts", "_changes", "answers", "offer")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.answers: tuple[Verdict, ...] | None = None
        self._attempts = 0
        self._changes = _Changes()

    def change(self, offer: Offer) -> bool:
        """Another list, with another number; True where the peer is to be told at once."""
        is_owed = bool(self.offer.networks or offer.networks)
        self.offer = offer
        self.answers = None
        self._attempts = 0
        return is_owed

    def begin(self) -> bool:
        """A new session; True where there is something to tell."""
        self._attempts = 0
        return bool(self.offer.networks)

    def message(self) -> Control:
        """The next attempt."""
        self._attempts += 1
        body = self.offer.run + b"".join(PREFIX.pack(one.length, one.network) for one in self.offer.networks)
        return Control(ControlKind.ANNOUNCE, self.offer.number, body)

    def pause_ns(self) -> int | None:
        """How long to wait for the answer before the next attempt; None after the last one."""
        return FIRST_PAUSE_NS << self._attempts - 1 if self._attempts < ATTEMPTS else None

    def answered(self, message: Control, now: int) -> bool | Drop:
        """The peer answered; True where that is news. One news too many is repeated with the next session."""
        if message.number != self.offer.number:
            return Drop.TUNNEL_ANNOUNCE_OLD
        if len(message.body) != len(self.offer.networks):
            return Drop.TUNNEL_CONTROL
        answers = tuple(map(Verdict, message.body))
        if answers == self.answers:
            return False
        if not self._changes.may_be(now):
            return Drop.TUNNEL_ANNOUNCE_LIMIT
        self.answers = answers
        return True

    def shown(self) -> tuple[tuple[Network, Verdict | None], ...]:
        """The offer for people, each prefix with what the peer answered."""
        return _side_by_side(self.offer.networks, self.answers)


class Claim(NamedTuple):
    """The list that a peer told. `created_ns`: of the session that it came under last."""

    run: bytes
    number: int
    created_ns: int
    networks: tuple[Network, ...]


class Hearing:
    """What one peer tells us. `verdicts`: one for each prefix of the claim; `faults`: what the configuration says of
    each (`fault_of`). None where they were not looked at yet."""

    __slots__ = ("_changes", "claim", "faults", "verdicts")

    def __init__(self) -> None:
        self.claim: Claim | None = None
        self.faults: list[Verdict | None] | None = None
        self.verdicts: tuple[Verdict, ...] | None = None
        self._changes = _Changes()

    def take(self, message: Control, created_ns: int, now: int) -> bool | Drop:
        """An ANNOUNCE came under a session of that age. True where another list counts from now on, False where the one
        that is held was told again."""
        run, packed = message.body[:RUN_BYTES], message.body[RUN_BYTES:]
        held = self.claim
        if held is not None and not _is_later(message.number, run, created_ns, held):
            return Drop.TUNNEL_ANNOUNCE_OLD
        networks = _read(packed) if len(run) == RUN_BYTES else None
        if networks is None:
            return Drop.TUNNEL_CONTROL
        if held is not None and networks == held.networks:
            self.claim = Claim(run, message.number, max(created_ns, held.created_ns), networks)
            return False
        if held is not None and (run, message.number) == (held.run, held.number):
            return Drop.TUNNEL_CONTROL  # two lists under one number
        if not self._changes.may_be(now):
            return Drop.TUNNEL_ANNOUNCE_LIMIT
        self.claim = Claim(run, message.number, created_ns, networks)
        self.faults = self.verdicts = None
        return True

    def shown(self) -> tuple[tuple[Network, Verdict | None], ...]:
        """The claim for people, each prefix with what became of it."""
        return () if self.claim is None else _side_by_side(self.claim.networks, self.verdicts)

    def forget(self) -> bool:
        """The keys are gone, or nobody told the list again; True where there was one."""
        had = self.claim is not None
        self.claim = self.faults = self.verdicts = None
        return had

    def answer(self) -> Control | None:
        """What to say to the claim, once it was looked at."""
        if self.claim is None or self.verdicts is None:
            return None
        return Control(ControlKind.ANNOUNCED, self.claim.number, bytes(self.verdicts))


def _is_later(number: int, run: bytes, created_ns: int, held: Claim) -> bool:
    """True where a list counts beside the one held: a later one, or the same once more."""
    if run != held.run:
        return created_ns > held.created_ns
    return (number - held.number) % _NUMBERS < _NUMBERS >> 1


def _read(packed: bytes) -> tuple[Network, ...] | None:
    """The prefixes of a body without its run; None where one of them is impossible, or they are too many."""
    if len(packed) % PREFIX.size or len(packed) > MOST_PREFIXES * PREFIX.size:
        return None
    networks = [Network(network, length) for length, network in PREFIX.iter_unpack(packed)]
    if any(one.length > 32 or one.network & 0xFFFFFFFF >> one.length for one in networks):
        return None
    return tuple(networks)


def _side_by_side(
    networks: tuple[Network, ...], verdicts: tuple[Verdict, ...] | None
) -> tuple[tuple[Network, Verdict | None], ...]:
    known: tuple[Verdict | None, ...] = verdicts if verdicts is not None else (None,) * len(networks)
    return tuple(dict(zip(networks, known, strict=True)).items())


# Taking


def fault_of(prefix: Network, peer: PeerConfig, allowed: AllowedIps, networks: Networks) -> Verdict | None:
    """What speaks against a prefix that a peer announces, or CONFIGURED; None where the peer may have it.

    A prefix may hold longer ones that are configured for others, since these still win; it may not lie in one.
    """
    owners = allowed.configured_around(prefix)
    if peer.name not in owners and not any(around.holds(prefix) for around in peer.accept):
        return Verdict.NOT_ALLOWED
    if prefix.length < SHORTEST_ANNOUNCED:
        return Verdict.TOO_WIDE
    if any(special.overlaps(prefix) for special in networks.never):
        return Verdict.SPECIAL
    if any(own.overlaps(prefix) for own in networks.own):
        return Verdict.OURS
    if owners:
        return Verdict.CONFIGURED if peer.name in owners else Verdict.ELSEWHERE
    return None


class Claimant(NamedTuple):
    """A peer with a list. `key`: its public key; `faults`: what speaks against each prefix; `is_silent`: its last
    series of initiations was in vain."""

    key: bytes
    networks: tuple[Network, ...]
    faults: Sequence[Verdict | None]
    is_silent: bool


def shared_out(
    claimants: Sequence[Claimant], before: Mapping[Network, bytes]
) -> tuple[dict[Network, bytes], list[tuple[Verdict, ...]]]:
    """Who gets which prefix, by public key, and each claimant's verdicts. `before`: who has them now.

    Who has a prefix keeps it, until it announces it no more or does not answer while somebody else announces it too.
    """
    owners: dict[Network, bytes] = {}
    for are_silent in (False, True):
        for has_it in (True, False):
            for claimant in claimants:
                if claimant.is_silent is not are_silent:
                    continue
                for network, fault in zip(claimant.networks, claimant.faults, strict=True):
                    if fault is None and (not has_it or before.get(network) == claimant.key):
                        owners.setdefault(network, claimant.key)
    verdicts = [
        tuple(
            fault if fault is not None else Verdict.ACCEPTED if owners[network] == claimant.key else Verdict.TAKEN
            for network, fault in zip(claimant.networks, claimant.faults, strict=True)
        )
        for claimant in claimants
    ]
    return owners, verdicts
