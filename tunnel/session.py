"""One pair of keys with its counters, and the table of the indices by which peers name their sessions.

What the sealing and opening of a packet changes lies in one piece of memory, `Session.memory`, which compiled code
(`bridge.ports.udp.lanes`) reads and writes as well: there is one counter and one window, whoever uses them.

| offset | bytes, native order | what |
|---|---|---|
| 0 | 8 | the next counter to send |
| 8 | 8 | the greatest counter that was accepted |
| 16 | 8 | until when the keys may be used, ns; 0: they are wiped |
| 24 | 8192 | the replay window's ring, a byte a slot |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from tunnel.messages import COUNTED_HEADS, DATA_HEADER
from tunnel.noise import SessionKeys
from tunnel.replay import REJECT_AFTER_MESSAGES, SLOTS, ReplayWindow
from wire.drop import Drop
from wire.units import SECOND_NS

if TYPE_CHECKING:
    from tunnel.effects import Endpoint
    from tunnel.peer import Peer

REKEY_AFTER_MESSAGES: Final = 1 << 60
REKEY_AFTER_NS: Final = 120 * SECOND_NS
REJECT_AFTER_NS: Final = 180 * SECOND_NS
RECENT_PACKETS: Final = 1 << 20
"""How far back a router may quote: seconds, at any speed."""

_COUNTER, _GREATEST, _UNTIL = 0, 1, 2
_HEAD_BYTES = 24


class Session:
    """Keys that a handshake gave. `peer` owns it; `local` and `remote` are the indices on the wire.

    `counter` is the next one to send. It only grows, and a new handshake always means new keys: no nonce comes twice.
    """

    __slots__ = ("_words", "created_ns", "is_initiator", "keys", "local", "memory", "peer", "remote", "window")

    def __init__(
        self, peer: Peer, keys: SessionKeys, local: int, remote: int, created_ns: int, *, is_initiator: bool
    ) -> None:
        self.peer = peer
        self.keys = keys
        self.local = local
        self.remote = remote
        self.created_ns = created_ns
        self.is_initiator = is_initiator
        self.memory = memoryview(bytearray(_HEAD_BYTES + SLOTS))
        self._words = self.memory[:_HEAD_BYTES].cast("Q")
        self._words[_UNTIL] = created_ns + REJECT_AFTER_NS
        self.window = ReplayWindow(self._words[_GREATEST : _GREATEST + 1], self.memory[_HEAD_BYTES:])

    @property
    def counter(self) -> int:
        """The next one to send."""
        counter: int = self._words[_COUNTER]
        return counter

    @counter.setter
    def counter(self, counter: int) -> None:
        self._words[_COUNTER] = counter

    def is_over(self, now: int) -> bool:
        """180 s old: nothing is sent and nothing accepted any more."""
        return now - self.created_ns >= REJECT_AFTER_NS

    def room(self, now: int) -> int:
        """How many more packets may be sent."""
        return 0 if self.is_over(now) else REJECT_AFTER_MESSAGES - self.counter

    def is_due(self, now: int) -> bool:
        """A sender should ask for new keys: 2^60 messages, or (the initiator alone) 120 s."""
        return self.counter >= REKEY_AFTER_MESSAGES or (self.is_initiator and now - self.created_ns >= REKEY_AFTER_NS)

    def take(self, packets: int) -> int:
        """Reserve counters for a burst; the first of them."""
        first = self.counter
        assert first + packets <= REJECT_AFTER_MESSAGES, "more packets than counters"
        assert not self.keys.send.is_wiped, "a session that has ended"
        self.counter = first + packets
        return first

    def has_sent(self, quoted: bytes, now: int) -> bool:
        """Whether somebody quotes the head of a data message or an envelope that we sent lately: the peer's random
        index, and a counter in use. Who is not on the path has seen neither."""
        if len(quoted) < DATA_HEADER.size or self.is_over(now):
            return False
        head, receiver, counter = DATA_HEADER.unpack_from(quoted)
        if head not in COUNTED_HEADS or receiver != self.remote:
            return False
        return 0 < self.counter - int(counter) <= RECENT_PACKETS

    def wipe(self) -> None:
        """Overwrite both keys, once nobody may use them."""
        self._words[_UNTIL] = 0
        self.keys.send.wipe()
        self.keys.receive.wipe()


class Lane(NamedTuple):
    """What others may do for a peer that is reached directly: seal packets of at most `mtu_bytes` under `sending` and
    send them to `endpoint`, open what comes from there under `receiving`; until a session's memory says otherwise."""

    peer: str
    endpoint: Endpoint
    mtu_bytes: int
    sending: Session
    receiving: tuple[Session, ...]


class IndexTable:
    """The indices that we gave out: random, 32 bits, each of them once at a time."""

    __slots__ = ("_random_bytes", "pending", "sessions")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self.sessions: dict[int, Session] = {}
        self.pending: dict[int, Peer] = {}  # initiations that wait for their response

    def find(self, receiver: int, counter: int, now: int) -> Session | Drop:
        """The session that a message names, or why the message goes no further; it is not authenticated yet."""
        session = self.sessions.get(receiver)
        if session is None:
            return Drop.TUNNEL_UNKNOWN_INDEX
        if session.is_over(now):
            return Drop.TUNNEL_EXPIRED
        return session if session.window.may_be_new(counter) else Drop.TUNNEL_REPLAY

    def draw(self) -> int:
        """An index that is not in use."""
        while True:
            index = int.from_bytes(self._random_bytes(4), "little")
            if index not in self.sessions and index not in self.pending:
                return index
