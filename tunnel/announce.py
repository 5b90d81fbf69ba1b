"""Announced prefixes: the networks that a node says lie behind it, and the part of that which its peer accepts.

Each end tells the other its whole list with every new session, and after a change. It repeats the list until an answer
with the same number comes, at most `ATTEMPTS` times: a loss does not matter, and a plain WireGuard peer, which never
answers, is left alone until the next session. A list replaces the one before; the empty one withdraws everything.

*Order.* Numbers grow within a run of the sender's process; `run` names that run. Within a run the greater number
counts, whatever session it came under. Another run counts where its session is a newer one. So neither a datagram that
is late nor one of a process that has ended brings an old list back.

*Life.* A list lives as long as the peer's keys. It is also withdrawn where data comes under a newer session and the
list is not told again within `RENEW_NS`: the node has started anew and announces nothing any more.

*Verdicts.* `objection_to` judges a prefix by itself; `shared_out` decides who gets a prefix that several peers
announce. The answer has a byte for each prefix (`Verdict`), so that the operator of the announcing node sees the
outcome.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tunnel.allowed import AllowedIps
from tunnel.control import ControlKind, ControlMessage
from tunnel.effects import SHORTEST_ANNOUNCED, Network, Networks, PeerConfig, Verdict
from wire.drop import Drop
from wire.units import SECOND_NS

RUN_BYTES: Final = 8
PREFIX: Final = struct.Struct("!BI")
MOST_PREFIXES: Final = 200
"""Prefixes of one list: the message has 1,016 bytes at most, and every path that carries 1,280 bytes takes it."""
ATTEMPTS: Final = 6
FIRST_PAUSE_NS: Final = SECOND_NS
"""The pauses between attempts double: the last one leaves 31 s after the first."""
RENEW_NS: Final = 60 * SECOND_NS
LISTS_AT_ONCE: Final = 4
LIST_PAUSE_NS: Final = 10 * SECOND_NS
"""A peer may change its list so many times at once, and once more after each pause. The same holds for its answers."""
_NUMBERS: Final = 1 << 32


class Offer(NamedTuple):
    """Our list, for every peer. `run`: random bytes of this process; `number`: one more with each change."""

    run: bytes = bytes(RUN_BYTES)
    number: int = 0
    networks: tuple[Network, ...] = ()


class _Changes:
    """A bound on how often a peer may change its list or its answer: each change is logged, and may move routes."""

    __slots__ = ("_left", "_since_ns")

    def __init__(self) -> None:
        self._left = LISTS_AT_ONCE
        self._since_ns: int | None = None  # `_left` has grown for the time until then

    def may_be(self, now: int) -> bool:
        """Count a change; False where it is one too many."""
        since = now if self._since_ns is None else self._since_ns
        grown, rest = divmod(now - since, LIST_PAUSE_NS)
        self._left = min(LISTS_AT_ONCE, self._left + grown)
        self._since_ns = now - rest
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Telling:
    """Our list towards one peer: `offer` and the attempts to tell it.

    `answers`: the peer's verdict on each prefix of the offer, None until the peer has answered.
    """

    __slots__ = ("_attempts", "_changes", "answers", "offer")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.answers: tuple[Verdict, ...] | None = None
        self._attempts = 0
        self._changes = _Changes()

    def change(self, offer: Offer) -> bool:
        """Take over another list, with another number; True where the peer is to be told at once."""
        is_owed = bool(self.offer.networks or offer.networks)
        self.offer = offer
        self.answers = None
        self._attempts = 0
        return is_owed

    def begin(self) -> bool:
        """A session is new; True where there is a list to tell."""
        self._attempts = 0
        return bool(self.offer.networks)

    def message(self) -> ControlMessage:
        """The message of the next attempt."""
        self._attempts += 1
        body = self.offer.run + b"".join(PREFIX.pack(one.length, one.network) for one in self.offer.networks)
        return ControlMessage(ControlKind.ANNOUNCE, self.offer.number, body)

    def pause_ns(self) -> int | None:
        """The time to wait for the answer before the next attempt; None after the last one."""
        return FIRST_PAUSE_NS << self._attempts - 1 if self._attempts < ATTEMPTS else None

    def answered(self, message: ControlMessage, now: int) -> bool | Drop:
        """The peer answered; True where its verdicts are others than before. A change too many is dropped, and told
        again with the next session."""
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
        """The offer for people: each prefix with the peer's verdict."""
        return _side_by_side(self.offer.networks, self.answers)


class PrefixClaim(NamedTuple):
    """The list of a peer. `created_ns`: the creation of the session that it came under last."""

    run: bytes
    number: int
    created_ns: int
    networks: tuple[Network, ...]


class Hearing:
    """The list of one peer, `claim`. For each of its prefixes, `objections`: the configuration's (`objection_to`), and
    `verdicts`: the tunnel's. None until they are judged."""

    __slots__ = ("_changes", "claim", "objections", "verdicts")

    def __init__(self) -> None:
        self.claim: PrefixClaim | None = None
        self.objections: list[Verdict | None] | None = None
        self.verdicts: tuple[Verdict, ...] | None = None
        self._changes = _Changes()

    def receive(self, message: ControlMessage, created_ns: int, now: int) -> bool | Drop:
        """An ANNOUNCE came under a session that was created then. True where another list counts from now on, False
        where the one that we hold was told again."""
        run, packed = message.body[:RUN_BYTES], message.body[RUN_BYTES:]
        held = self.claim
        if held is not None and not _is_later(message.number, run, created_ns, held):
            return Drop.TUNNEL_ANNOUNCE_OLD
        networks = _read(packed) if len(run) == RUN_BYTES else None
        if networks is None:
            return Drop.TUNNEL_CONTROL
        if held is not None and networks == held.networks:
            self.claim = PrefixClaim(run, message.number, max(created_ns, held.created_ns), networks)
            return False
        if held is not None and (run, message.number) == (held.run, held.number):
            return Drop.TUNNEL_CONTROL  # two lists under one number
        if not self._changes.may_be(now):
            return Drop.TUNNEL_ANNOUNCE_LIMIT
        self.claim = PrefixClaim(run, message.number, created_ns, networks)
        self.objections = self.verdicts = None
        return True

    def shown(self) -> tuple[tuple[Network, Verdict | None], ...]:
        """The claim for people: each prefix with its verdict."""
        return () if self.claim is None else _side_by_side(self.claim.networks, self.verdicts)

    def forget(self) -> bool:
        """Forget the list; True where there was one."""
        had = self.claim is not None
        self.claim = self.objections = self.verdicts = None
        return had

    def answer(self) -> ControlMessage | None:
        """The answer to the claim; None until it is judged."""
        if self.claim is None or self.verdicts is None:
            return None
        return ControlMessage(ControlKind.ANNOUNCED, self.claim.number, bytes(self.verdicts))


def _is_later(number: int, run: bytes, created_ns: int, held: PrefixClaim) -> bool:
    """True where a list is later than the one that we hold, or is that one told again."""
    if run != held.run:
        return created_ns > held.created_ns
    return (number - held.number) % _NUMBERS < _NUMBERS >> 1


def _read(packed: bytes) -> tuple[Network, ...] | None:
    """The prefixes in the body of an ANNOUNCE behind its run; None where one is impossible, or they are too many."""
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


# Verdicts


def objection_to(prefix: Network, peer: PeerConfig, allowed: AllowedIps, networks: Networks) -> Verdict | None:
    """The objection of the configuration to a prefix that a peer announces, or CONFIGURED; None where the peer may have
    it.

    A prefix may hold longer ones that are configured for other peers, because these still win. It may not lie in one.
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
    """A peer with a list. `key`: its public key; `objections`: the configuration's to each prefix; `is_silent`: the
    last series of initiations to the peer was in vain."""

    key: bytes
    networks: tuple[Network, ...]
    objections: Sequence[Verdict | None]
    is_silent: bool


def shared_out(
    claimants: Sequence[Claimant], before: Mapping[Network, bytes]
) -> tuple[dict[Network, bytes], list[tuple[Verdict, ...]]]:
    """The owner of each prefix, by public key, and each claimant's verdicts. `before`: the present owners.

    The owner of a prefix keeps it until it does not announce it any more, or is silent while another peer announces it.
    """
    owners: dict[Network, bytes] = {}
    for are_silent in (False, True):
        for has_it in (True, False):
            for claimant in claimants:
                if claimant.is_silent is not are_silent:
                    continue
                for network, objection in zip(claimant.networks, claimant.objections, strict=True):
                    if objection is None and (not has_it or before.get(network) == claimant.key):
                        owners.setdefault(network, claimant.key)
    verdicts = [
        tuple(
            _verdict(objection, is_owner=owners.get(network) == claimant.key)
            for network, objection in zip(claimant.networks, claimant.objections, strict=True)
        )
        for claimant in claimants
    ]
    return owners, verdicts


def _verdict(objection: Verdict | None, *, is_owner: bool) -> Verdict:
    if objection is not None:
        return objection
    return Verdict.ACCEPTED if is_owner else Verdict.TAKEN
