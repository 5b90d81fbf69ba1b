"""The longest inner packet that the path to one peer carries, and how it is found out.

Sizes are those of inner packets unless they are called outer: an outer IP packet is `overhead_bytes` longer. The size
in use begins at the limit that the operator set. Two things lower it:

- A router says "too big" (RFC 1191, RFC 8201, RFC 4459) and quotes bytes that only somebody on the path can know.
  `tunnel.peers.peer` checks the quote and calls `told`. A signal that quotes too little is `hinted`: it is a reason to
  probe.
- A node of this design does not get packets that it should get (RFC 8899, for paths that lose long packets in silence).
  A *round* probes one size. Lost probes alone say nothing. A size is too long where it was lost in each of `TRIES`
  while shorter ones were answered in the same round. Then the search goes on between both, in steps of an answer or of
  `TRIES` losses.

A round begins with a new session, after the size was lowered, and every `AGE_NS`. A peer that has never sent a control
message, like any other WireGuard peer, gets one whole round in `ASK_AGAIN_NS`.

A lowered size stays for `AGE_NS` (RFC 1191 6.3, RFC 8899's PMTU_RAISE_TIMER). Then a node is probed with the limit, and
the size that it answers is used. Towards another peer the limit is used, and the next router lowers it again. The only
increase before that is the end of a search: its lower end is used at once, and its result stays below the size that
failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tunnel.constants import OFF
from tunnel.effects import Endpoint, PathState
from tunnel.messages import ENVELOPE_BYTES, OVERHEAD_IPV4_BYTES, OVERHEAD_IPV6_BYTES
from wire.units import SECOND_NS

AGE_NS: Final = 600 * SECOND_NS
ASK_AGAIN_NS: Final = 3600 * SECOND_NS
TIMEOUT_NS: Final = SECOND_NS
"""A probe counts as lost after this time (RFC 8899 5.1.1: not below a second). A late answer counts until its round
ends."""
TRIES: Final = 3
PAUSE_NS: Final = 10 * SECOND_NS
"""Two rounds begin at least this far apart, however often a peer moves."""
HINT_PAUSE_NS: Final = 60 * SECOND_NS
SILENT_ROUNDS: Final = 3
"""After so many rounds without any answer a node counts as another WireGuard peer again."""
MOST_PROBES: Final = 5
"""Probes that are sent at once."""

FLOOR_IPV4_BYTES: Final = 576
"""Outer. Every host takes a packet of this size (RFC 791). A signal that says less is not believed."""
FLOOR_IPV6_BYTES: Final = 1280
BASE_BYTES: Final = 1280
"""Outer. Nearly every path carries this size: it is the first guess where the limit fails."""
_PLATEAUS: Final = (1280, 1006, FLOOR_IPV4_BYTES)  # RFC 1191 7.1, for routers that do not say how long is too long
_GRAIN_BYTES: Final = 4


class PathLimits(NamedTuple):
    """The sizes that a path to a peer begins with. `limit_bytes`: no inner packet is longer; `overhead_bytes`: the
    bytes around each inner packet; `floor_bytes`: outer, the size that the path carries whatever a router says."""

    limit_bytes: int
    overhead_bytes: int = OVERHEAD_IPV4_BYTES
    floor_bytes: int = FLOOR_IPV4_BYTES

    def through_relay(self, mtu_bytes: int) -> PathLimits:
        """The limits of a peer behind the relay that has these limits. `mtu_bytes`: the relay's longest inner
        packet."""
        return PathLimits(mtu_bytes - ENVELOPE_BYTES, self.overhead_bytes + ENVELOPE_BYTES, self.floor_bytes)


def direct_limits(endpoint: Endpoint, limit_bytes: int) -> PathLimits:
    """The limits of a path without a relay."""
    if len(endpoint.address) == 16:
        return PathLimits(limit_bytes, OVERHEAD_IPV6_BYTES, FLOOR_IPV6_BYTES)
    return PathLimits(limit_bytes)


class Probe(NamedTuple):
    """A PROBE to send: an inner packet of exactly `size_bytes`."""

    number: int
    size_bytes: int


class PathMtu:
    """The path to one peer. `mtu_bytes`: the longest inner packet that is sent; `due_ns`: when `tick` is wanted, or
    `OFF`; `limits`: of the path.

    `draw`: returns a 32-bit number that nobody can guess.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_bad",
        "_began_ns",
        "_confirmed",
        "_draw",
        "_good",
        "_probes",
        "_raise_ns",
        "_silent_ns",
        "_silent_rounds",
        "_size",
        "_speaks",
        "_tries",
        "due_ns",
        "limits",
        "mtu_bytes",
    )

    def __init__(self, limits: PathLimits, draw: Callable[[], int]) -> None:
        self._draw = draw
        self.limits = limits
        self._speaks = False
        self._silent_rounds = 0
        self._silent_ns = -OFF
        self._began_ns = -OFF
        self._confirmed = 0
        self._raise_ns = OFF
        # Of the present round: the size that is probed (0: there is no round), the longest size that passed, the
        # shortest that failed, the tries of the probed size; the probes by number, the sizes sent and answered.
        self._size = self._good = self._bad = self._tries = 0
        self._probes: dict[int, int] = {}
        self._asked: set[int] = set()
        self._answered: set[int] = set()
        self.mtu_bytes = limits.limit_bytes
        self.due_ns = OFF

    @property
    def _floor(self) -> int:
        return min(self.limits.floor_bytes - self.limits.overhead_bytes, self.limits.limit_bytes)

    @property
    def state(self) -> PathState:
        """The reason to believe `mtu_bytes`."""
        if self._size and (self._tries > 1 or self._size != self.mtu_bytes):
            return PathState.SEARCHING
        if self._confirmed == self.mtu_bytes:
            return PathState.CONFIRMED
        return PathState.ASSUMED if self.mtu_bytes == self.limits.limit_bytes else PathState.LOWERED

    # The peer moves, speaks, gets a session

    def moved(self, limits: PathLimits, now: int) -> None:
        """The peer is at another address: another path, of which nothing is known."""
        self.limits = limits
        self._stop()
        self.mtu_bytes = limits.limit_bytes
        self._confirmed = 0
        self._raise_ns = OFF
        self.due_ns = self._soon(now) if self._speaks else OFF

    def changed(self, limits: PathLimits, now: int) -> None:
        """The path is the same and its limits are others, for example those of a relay."""
        if limits == self.limits:
            return
        had_the_limit = self.mtu_bytes == self.limits.limit_bytes
        self._stop()
        self.limits = limits
        if had_the_limit or self.mtu_bytes > limits.limit_bytes:
            self.mtu_bytes = limits.limit_bytes
            self._raise_ns = OFF
        self.due_ns = self._soon(now) if self._speaks else self._raise_ns

    def session(self, now: int) -> None:
        """A session is ready: probes can be sent."""
        if not self._size and self._may_speak(now):
            self.due_ns = self._soon(now)

    def _may_speak(self, now: int) -> bool:
        return self._speaks or now - self._silent_ns >= ASK_AGAIN_NS

    def spoken(self, now: int) -> None:
        """The peer sent a control message: it will answer ours."""
        self._silent_rounds = 0
        if not self._speaks:
            self._speaks = True
            if not self._size:
                self.due_ns = self._soon(now)

    def _soon(self, now: int) -> int:
        return max(now, self._began_ns + PAUSE_NS)

    # Signals about the path

    def told(self, outer_bytes: int, now: int) -> None:
        """A packet of ours was too big, by a signal that is to be believed. `outer_bytes`: the size that passes; 0
        where the router does not say it (RFC 1191 5). Only this and a round lower `mtu_bytes`."""
        if outer_bytes == 0:
            outer_bytes = self._plateau()
        size = max(outer_bytes - self.limits.overhead_bytes, self._floor)
        if size < self.mtu_bytes:
            is_asking = self._size != 0  # the round ends before its answers come
            self._stop()
            self.mtu_bytes = size
            self._confirmed = 0
            self._raise_ns = now + AGE_NS
            self.due_ns = self._soon(now) if self._speaks or is_asking else self._raise_ns
        elif self._size and size < self._size:  # a probe was too big, and the size in use is not
            self._bad = min(self._bad, size + 1)
            if size > max(self._good, self.mtu_bytes):
                self._step(size, now)
            else:
                self._rest(now)

    def _plateau(self) -> int:
        """A guess below the probed size, or else below the size in use."""
        used = self.mtu_bytes + self.limits.overhead_bytes
        if self._size > self.mtu_bytes:
            return used
        return next((plateau for plateau in _PLATEAUS if plateau < used), FLOOR_IPV4_BYTES)

    def hinted(self, now: int) -> None:
        """A signal that anybody may have forged says that a packet was too big: probe, at most once in
        `HINT_PAUSE_NS`."""
        if self._speaks and not self._size and now - self._began_ns >= HINT_PAUSE_NS:
            self.due_ns = now

    def answered(self, number: int, now: int) -> None:
        """The peer got the probe of that number. A number that is not of this round changes nothing."""
        size = self._probes.pop(number, 0)
        if not size:
            return
        self._answered.add(size)
        if size == self._size or (self._good and size > self._good):  # the second: the answer was late
            self._good = size
            self._bad = max(self._bad, size + 1)
            self._use(size, now)
            self._search(now)

    # Time passes

    def tick(self, now: int, *, can_probe: bool) -> list[Probe]:
        """Fire what is due, and return the probes to send. `can_probe`: there is a session to send them under."""
        probes: list[Probe] = []
        while self.due_ns <= now:
            self.due_ns = OFF
            if not self._size:
                self._begin(now, can_probe=can_probe)
            elif not can_probe:
                self._rest(now)
            elif self._tries < TRIES:
                probes += self._try(now)
            else:
                self._fail(now)
        return probes

    def _begin(self, now: int, *, can_probe: bool) -> None:
        """Begin a round. Towards a peer that is no node of this design, the increase that is due comes before it."""
        has_aged = self._raise_ns <= now
        if has_aged and not self._speaks:
            self.mtu_bytes = self.limits.limit_bytes
            self._raise_ns = OFF
        if can_probe and self._may_speak(now):
            self._began_ns = now
            self._good = 0
            size = self.limits.limit_bytes if has_aged else self.mtu_bytes
            self._bad = size + 1
            self._step(size, now)
        elif not self._speaks:
            self.due_ns = self._raise_ns

    def _step(self, size: int, now: int) -> None:
        """Probe this size next."""
        self._size = size
        self._tries = 0
        self.due_ns = now

    def _try(self, now: int) -> list[Probe]:
        """The probes of one try. Where the probed size was lost once and no size has passed yet, it is sent twice, with
        shorter ones beside it: the decision then lowers the MTU, and a loss of 5% should not cause that once in a
        day."""
        self._tries += 1
        sizes = [self._size]
        if self._tries > 1 and not self._good:
            shorter = (self.mtu_bytes, BASE_BYTES - self.limits.overhead_bytes, self._floor)
            sizes += sizes + list({size for size in shorter if size < self._size} - self._answered)
        # Ascending: a shorter probe behind a longer one may leave in one piece with it, and be lost with it.
        sizes.sort()
        made = [Probe(self._draw(), size) for size in sizes]
        assert len(made) <= MOST_PROBES
        self._probes.update(made)
        self._asked.update(sizes)
        self.due_ns = now + TIMEOUT_NS
        return made

    def _fail(self, now: int) -> None:
        """The probed size was lost in all its tries."""
        if self._good:
            self._bad = self._size
        elif self._answered:
            self._good = max(self._answered)
            self._bad = min(size for size in self._asked if size > self._good)
            if self._good <= self.mtu_bytes:
                self._use(self._good, now)
        else:  # no size was answered: the peer does not speak control messages, or is away
            self._silent_ns = now
            self._silent_rounds += 1
            if self._silent_rounds >= SILENT_ROUNDS:
                self._speaks = False
            self._rest(now)
            return
        self._search(now)

    def _search(self, now: int) -> None:
        """Probe the middle between the sizes that pass and those that do not, in steps of 4 outer bytes."""
        size = (self._good + self._bad) // 2
        size -= (size + self.limits.overhead_bytes) % _GRAIN_BYTES
        if size > self._good:
            self._step(size, now)
        else:
            self._rest(now)

    def _use(self, size: int, now: int) -> None:
        """Use this size: its probe was answered, and no longer one was."""
        if size < self.mtu_bytes or self._raise_ns <= now:
            self._raise_ns = now + AGE_NS
        self.mtu_bytes = self._confirmed = size
        if size == self.limits.limit_bytes:
            self._raise_ns = OFF

    def _rest(self, now: int) -> None:
        """The round is over: set the time of the next one."""
        self._stop()
        if self._raise_ns <= now:
            self._raise_ns = now + AGE_NS
        self.due_ns = min(self._raise_ns, now + AGE_NS) if self._speaks else self._raise_ns

    def _stop(self) -> None:
        self._size = self._good = self._bad = self._tries = 0
        self._probes.clear()
        self._asked.clear()
        self._answered.clear()
