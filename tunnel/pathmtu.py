"""The largest inner packet that the path to one peer carries, and how it is found out.

Sizes are those of inner packets unless they are called outer: an outer IP packet is `overhead_bytes` longer. What is
used begins at the limit that the operator set, and two things lower it:

- A router says "too big" (RFC 1191, RFC 8201, RFC 4459), and quotes what only somebody on the path can know: `told`,
  after `tunnel.peer` has looked at the quote. One that quotes too little is `hinted`: no more than a reason to probe.
- A node of this design does not get what it should (RFC 8899, for paths that lose long packets in silence). A *round*
  probes one size. Lost probes alone say nothing: a size is too long when it was lost in each of `TRIES` while shorter
  ones were answered in the same round. The search goes on between both, in steps of an answer or of `TRIES` losses.

A round begins with a new session, after something was lowered, and every `AGE_NS`. A peer that never said a control
message, which any other WireGuard peer is, gets one whole round in `ASK_AGAIN_NS`.

A value that was lowered stays for `AGE_NS` (RFC 1191 6.3, RFC 8899's PMTU_RAISE_TIMER). Then a node is probed with the
limit, and whatever it answers is used; towards another peer the limit is used, and the next router lowers it again.
The only increase before that is the end of a search: its lower end is used at once, its result stays below what failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tunnel.effects import Endpoint, PathState
from tunnel.messages import ENVELOPE_BYTES, OVERHEAD_IPV4_BYTES, OVERHEAD_IPV6_BYTES
from tunnel.timers import OFF
from wire.units import SECOND_NS

AGE_NS: Final = 600 * SECOND_NS
ASK_AGAIN_NS: Final = 3600 * SECOND_NS
TIMEOUT_NS: Final = SECOND_NS
"""RFC 8899 5.1.1: not below a second. A late answer counts as long as its round goes on."""
TRIES: Final = 3
PAUSE_NS: Final = 10 * SECOND_NS
"""Between the beginnings of two rounds, whatever happens: peers may move as often as they like."""
HINT_PAUSE_NS: Final = 60 * SECOND_NS
SILENT_ROUNDS: Final = 3
"""So many rounds without any answer, and a node counts as another WireGuard peer again."""
MOST_PROBES: Final = 5
"""At once."""

FLOOR_IPV4_BYTES: Final = 576
"""Outer. RFC 791: what every host takes. What is said to be narrower is not believed."""
FLOOR_IPV6_BYTES: Final = 1280
BASE_BYTES: Final = 1280
"""Outer. What nearly every path carries, the first guess where the limit fails."""
_PLATEAUS: Final = (1280, 1006, FLOOR_IPV4_BYTES)  # RFC 1191 7.1, for routers that do not say how long is too long
_GRAIN_BYTES: Final = 4


class Way(NamedTuple):
    """How a peer is reached. `limit_bytes`: no inner packet is longer; `overhead_bytes`: around each of them;
    `floor_bytes`: outer, what the path carries whatever anybody says."""

    limit_bytes: int
    overhead_bytes: int = OVERHEAD_IPV4_BYTES
    floor_bytes: int = FLOOR_IPV4_BYTES

    def through_relay(self, mtu_bytes: int) -> Way:
        """From here on by an envelope to a relay, whose own inner packets have that many bytes at most."""
        return Way(mtu_bytes - ENVELOPE_BYTES, self.overhead_bytes + ENVELOPE_BYTES, self.floor_bytes)


def direct_way(endpoint: Endpoint, limit_bytes: int) -> Way:
    """By datagrams to an endpoint."""
    if len(endpoint.address) == 16:
        return Way(limit_bytes, OVERHEAD_IPV6_BYTES, FLOOR_IPV6_BYTES)
    return Way(limit_bytes)


class Probe(NamedTuple):
    """A PROBE to send: an inner packet of exactly `size_bytes`."""

    number: int
    size_bytes: int


class PathMtu:
    """What is believed of the path to one peer: `mtu_bytes` is in use, `due_ns` is when `tick` has something to do.

    `draw`: a 32-bit number that nobody can guess.
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
        "mtu_bytes",
        "way",
    )

    def __init__(self, way: Way, draw: Callable[[], int]) -> None:
        self._draw = draw
        self.way = way
        self._speaks = False
        self._silent_rounds = 0
        self._silent_ns = -OFF
        self._began_ns = -OFF
        self._confirmed = 0
        self._raise_ns = OFF
        # A round: what is probed (0: none is under way), what is known to pass, what not, and what was sent.
        self._size = self._good = self._bad = self._tries = 0
        self._probes: dict[int, int] = {}
        self._asked: set[int] = set()
        self._answered: set[int] = set()
        self.mtu_bytes = way.limit_bytes
        self.due_ns = OFF

    @property
    def _floor(self) -> int:
        return min(self.way.floor_bytes - self.way.overhead_bytes, self.way.limit_bytes)

    @property
    def state(self) -> PathState:
        """How `mtu_bytes` is known."""
        if self._size and (self._tries > 1 or self._size != self.mtu_bytes):
            return PathState.SEARCHING
        if self._confirmed == self.mtu_bytes:
            return PathState.CONFIRMED
        return PathState.ASSUMED if self.mtu_bytes == self.way.limit_bytes else PathState.LOWERED

    # What happens to the peer

    def moved(self, way: Way, now: int) -> None:
        """The peer is at another address: another path, of which nothing is known."""
        self.way = way
        self._stop()
        self.mtu_bytes = way.limit_bytes
        self._confirmed = 0
        self._raise_ns = OFF
        self.due_ns = self._soon(now) if self._speaks else OFF

    def changed(self, way: Way, now: int) -> None:
        """The same path, and another limit (or another way to its beginning)."""
        if way == self.way:
            return
        had_the_limit = self.mtu_bytes == self.way.limit_bytes
        self._stop()
        self.way = way
        if had_the_limit or self.mtu_bytes > way.limit_bytes:
            self.mtu_bytes = way.limit_bytes
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

    # What the path says

    def told(self, outer_bytes: int, now: int) -> None:
        """A packet of ours was too big, and whoever says so is to be believed: `outer_bytes` is what passes.

        0 is a router that does not say it (RFC 1191 5). Nothing but this and a round lowers `mtu_bytes`.
        """
        if outer_bytes == 0:
            outer_bytes = self._plateau()
        size = max(outer_bytes - self.way.overhead_bytes, self._floor)
        if size < self.mtu_bytes:
            is_asking = self._size != 0  # and will not know whether anybody answers
            self._stop()
            self.mtu_bytes = size
            self._confirmed = 0
            self._raise_ns = now + AGE_NS
            self.due_ns = self._soon(now) if self._speaks or is_asking else self._raise_ns
        elif self._size and size < self._size:  # a probe was too big, and what is in use is not
            self._bad = min(self._bad, size + 1)
            if size > max(self._good, self.mtu_bytes):
                self._step(size, now)
            else:
                self._rest(now)

    def _plateau(self) -> int:
        """A guess below what is probed, else below what is used."""
        used = self.mtu_bytes + self.way.overhead_bytes
        if self._size > self.mtu_bytes:
            return used
        return next((plateau for plateau in _PLATEAUS if plateau < used), FLOOR_IPV4_BYTES)

    def hinted(self, now: int) -> None:
        """Anybody may have said that a packet was too big: have a look, at most once in `HINT_PAUSE_NS`."""
        if self._speaks and not self._size and now - self._began_ns >= HINT_PAUSE_NS:
            self.due_ns = now

    def answered(self, number: int, now: int) -> None:
        """The peer got the probe of that number. A number of no probe of this round says nothing."""
        size = self._probes.pop(number, 0)
        if not size:
            return
        self._answered.add(size)
        if size == self._size or (self._good and size > self._good):  # the second: later than we waited
            self._good = size
            self._bad = max(self._bad, size + 1)
            self._use(size, now)
            self._search(now)

    # Time passes

    def tick(self, now: int, *, can_probe: bool) -> list[Probe]:
        """Fire what is due; the probes to send. `can_probe`: there is a session to send them under."""
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
        """A round, and before it, towards others, the increase that is due."""
        has_aged = self._raise_ns <= now
        if has_aged and not self._speaks:
            self.mtu_bytes = self.way.limit_bytes
            self._raise_ns = OFF
        if can_probe and self._may_speak(now):
            self._began_ns = now
            self._good = 0
            size = self.way.limit_bytes if has_aged else self.mtu_bytes
            self._bad = size + 1
            self._step(size, now)
        elif not self._speaks:
            self.due_ns = self._raise_ns

    def _step(self, size: int, now: int) -> None:
        """Probe that size next."""
        self._size = size
        self._tries = 0
        self.due_ns = now

    def _try(self, now: int) -> list[Probe]:
        """The probed size; where it was lost once and nothing has passed yet, twice, and shorter ones beside it: what
        is decided then lowers the MTU, and 5% of loss should not do that once in a day."""
        self._tries += 1
        sizes = [self._size]
        if self._tries > 1 and not self._good:
            shorter = (self.mtu_bytes, BASE_BYTES - self.way.overhead_bytes, self._floor)
            sizes += sizes + list({size for size in shorter if size < self._size} - self._answered)
        # Ascending: a shorter one behind a longer may leave in one piece with it, and be lost with it on the way.
        sizes.sort()
        made = [Probe(self._draw(), size) for size in sizes]
        assert len(made) <= MOST_PROBES
        self._probes.update(made)
        self._asked.update(sizes)
        self.due_ns = now + TIMEOUT_NS
        return made

    def _fail(self, now: int) -> None:
        """The probed size was lost as often as it may be."""
        if self._good:
            self._bad = self._size
        elif self._answered:
            self._good = max(self._answered)
            self._bad = min(size for size in self._asked if size > self._good)
            if self._good <= self.mtu_bytes:
                self._use(self._good, now)
        else:  # no word about sizes: the peer does not speak, or is away
            self._silent_ns = now
            self._silent_rounds += 1
            if self._silent_rounds >= SILENT_ROUNDS:
                self._speaks = False
            self._rest(now)
            return
        self._search(now)

    def _search(self, now: int) -> None:
        """Halve what lies between the sizes that pass and those that do not, in steps of 4 outer bytes."""
        size = (self._good + self._bad) // 2
        size -= (size + self.way.overhead_bytes) % _GRAIN_BYTES
        if size > self._good:
            self._step(size, now)
        else:
            self._rest(now)

    def _use(self, size: int, now: int) -> None:
        """A probe of that size got through, and it is the best that is known."""
        if size < self.mtu_bytes or self._raise_ns <= now:
            self._raise_ns = now + AGE_NS
        self.mtu_bytes = self._confirmed = size
        if size == self.way.limit_bytes:
            self._raise_ns = OFF

    def _rest(self, now: int) -> None:
        """The round is over; when the next one is due."""
        self._stop()
        if self._raise_ns <= now:
            self._raise_ns = now + AGE_NS
        self.due_ns = min(self._raise_ns, now + AGE_NS) if self._speaks else self._raise_ns

    def _stop(self) -> None:
        self._size = self._good = self._bad = self._tries = 0
        self._probes.clear()
        self._asked.clear()
        self._answered.clear()
