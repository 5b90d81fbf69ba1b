"""One session: the pair of keys that a handshake gave, the counter to send and the replay window.

Sealing and opening a packet changes nothing but `Session.memory`. Compiled code (`bridge.ports.udp.lanes`) reads and
writes the same memory, so there is one counter and one window, whichever code uses the session. Its words are in native
byte order:

| offset | bytes | content |
|---|---|---|
| 0 | 8 | the next counter to send |
| 8 | 8 | the greatest counter that was accepted |
| 16 | 8 | the time in ns until which the keys may be used; 0 once they are wiped |
| 24 | 8192 | the ring of the replay window, a byte for each slot |

WireGuard whitepaper 5.4.6 (transport data), 6.2 (limits).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tunnel.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_NS, REKEY_AFTER_MESSAGES, REKEY_AFTER_NS
from tunnel.effects import Endpoint
from tunnel.messages import COUNTED_HEADS, DATA_HEADER
from tunnel.noise import SessionKeys
from tunnel.replay import SLOTS, ReplayWindow

RECENT_PACKETS: Final = 1 << 20
"""A router may quote a packet that is at most so many counters old: seconds, at any speed."""

_COUNTER, _GREATEST, _UNTIL = 0, 1, 2
_HEAD_BYTES = 24


class Session:
    """The keys of one handshake. `local`: the index by which the peer names the session to us; `remote`: the index by
    which we name it to the peer; `is_initiator`: the handshake was ours.

    `counter` only grows, and a new handshake always gives new keys: no nonce is used twice.
    """

    __slots__ = ("_words", "created_ns", "is_initiator", "keys", "local", "memory", "remote", "window")

    def __init__(self, keys: SessionKeys, local: int, remote: int, created_ns: int, *, is_initiator: bool) -> None:
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
        """The counter of the next packet that is sealed."""
        counter: int = self._words[_COUNTER]
        return counter

    @counter.setter
    def counter(self, counter: int) -> None:
        self._words[_COUNTER] = counter

    def is_over(self, now: int) -> bool:
        """True from an age of 180 s on: nothing is sent and nothing accepted any more."""
        return now - self.created_ns >= REJECT_AFTER_NS

    def room(self, now: int) -> int:
        """The number of packets that may still be sent."""
        return 0 if self.is_over(now) else REJECT_AFTER_MESSAGES - self.counter

    def is_due(self, now: int) -> bool:
        """True where a sender should ask for new keys: after 2^60 messages or, for the initiator, 120 s."""
        return self.counter >= REKEY_AFTER_MESSAGES or (self.is_initiator and now - self.created_ns >= REKEY_AFTER_NS)

    def reserve(self, packets: int) -> int:
        """Reserve counters for a burst, and return the first of them. The caller has looked at `room`."""
        first = self.counter
        assert first + packets <= REJECT_AFTER_MESSAGES, "more packets than counters"
        assert not self.keys.send.is_wiped, "a session that has ended"
        self.counter = first + packets
        return first

    def has_sent(self, quoted: bytes, now: int) -> bool:
        """True where `quoted` begins like a data message or an envelope that we sent lately: it names the peer's random
        index and a recent counter. Only somebody on the path has seen both."""
        if len(quoted) < DATA_HEADER.size or self.is_over(now):
            return False
        head, receiver, counter = DATA_HEADER.unpack_from(quoted)
        if head not in COUNTED_HEADS or receiver != self.remote:
            return False
        return 0 < self.counter - int(counter) <= RECENT_PACKETS

    def wipe(self) -> None:
        """Overwrite both keys, and tell compiled code by the session's memory."""
        self._words[_UNTIL] = 0
        self.keys.send.wipe()
        self.keys.receive.wipe()


class Lane(NamedTuple):
    """The path of one peer's packets through compiled code (`bridge.ports.udp.lanes`), for a peer without a relay.

    Packets of at most `mtu_bytes` may be sealed under `sending` and sent to `endpoint`; datagrams may be opened under
    `receiving`. It holds until the memory of a session says that its keys are wiped.
    """

    peer: str
    endpoint: Endpoint
    mtu_bytes: int
    sending: Session
    receiving: tuple[Session, ...]
