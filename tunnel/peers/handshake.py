"""The handshake with one peer: messages are made and read here, and sent by `tunnel.peers.peer`.

| we are | messages | methods |
|---|---|---|
| the initiator | initiation out, response in | `initiation`, `finish` |
| the responder | initiation in, response out | `answer` |
| either, under load | cookie reply in | `accept_cookie` |

A *series* is an initiation and its repetitions (WireGuard whitepaper 6.4); `attempts` counts them. The cryptography is
in `tunnel.noise`, the MACs and cookies (5.4.4, 5.4.7) in `tunnel.cookies`, the time stamps (5.1) in `tunnel.tai64n`.
"""

from __future__ import annotations

from typing import Generic, NamedTuple

from tunnel import tai64n
from tunnel.common import Common
from tunnel.constants import INITIATION_PAUSE_NS, OFF, REKEY_TIMEOUT_NS
from tunnel.cookies import CookieJar
from tunnel.effects import Stamps
from tunnel.indices import IndexTable, Owner
from tunnel.messages import index_at
from tunnel.noise import Called, Initiated, RemoteKeys, SessionKeys, finish, initiate, read_timestamp, respond
from wire.drop import Drop


class Agreed(NamedTuple):
    """A handshake gave keys. `local` and `remote`: our index and the peer's; `message`: the response to send, b"" where
    the peer sent it."""

    keys: SessionKeys
    local: int
    remote: int
    message: bytes = b""


class Handshake(Generic[Owner]):
    """The handshakes with the peer `owner`. `keys`: its identity; `stamps`: of an earlier run.

    `pending`: the initiation that waits for its response, under `pending_index`. `attempts`: initiations of the present
    series.
    """

    __slots__ = (
        "_common",
        "_consumed_ns",
        "_indices",
        "_initiated_ns",
        "_jar",
        "_owner",
        "attempts",
        "keys",
        "pending",
        "pending_index",
        "stamps",
    )

    def __init__(
        self, keys: RemoteKeys, common: Common, indices: IndexTable[Owner], owner: Owner, stamps: Stamps
    ) -> None:
        self._common = common
        self._indices = indices
        self._owner = owner
        self._jar = CookieJar(keys.public)
        self._initiated_ns = -OFF
        self._consumed_ns = -OFF
        self.attempts = 0
        self.keys = keys
        self.stamps = stamps
        self.pending: Initiated | None = None
        self.pending_index = 0

    # As the initiator

    def earliest_ns(self, now: int) -> int:
        """The time of the next initiation: 5 s after the last one and a jitter, or `now` where that has passed."""
        if now - self._initiated_ns < REKEY_TIMEOUT_NS:
            return self._initiated_ns + REKEY_TIMEOUT_NS + self._common.jitter_ns()
        return now

    def initiation(self, now: int) -> bytes:
        """Another initiation of the series; it takes the place of the pending one. `stamps` has changed."""
        common = self._common
        self.drop_pending()
        self.stamps = self.stamps._replace(sent=tai64n.later(common.wall_ns(), self.stamps.sent))
        index = self._indices.draw()
        body, self.pending = initiate(common.local, self.keys, common.random_bytes(32), self.stamps.sent, index)
        self.pending_index = index
        self._indices.pending[index] = self._owner
        self.attempts += 1
        self._initiated_ns = now
        return self._jar.finish(body, now)

    def finish(self, message: bytes) -> Agreed | None:
        """The keys out of a response to the pending initiation; None where it does not authenticate."""
        assert self.pending is not None
        keys = finish(self.pending, self._common.local, self.keys, message)
        if keys is None:
            return None
        index = self.pending_index
        self.drop_pending()
        return Agreed(keys, index, index_at(message, 4))

    def accept_cookie(self, message: bytes, now: int) -> bool:
        """Keep the cookie of a reply for the next handshake message; False where the reply answers nothing of ours."""
        return self._jar.accept_reply(message, now)

    def drop_pending(self) -> None:
        """Wipe the pending initiation and give its index back."""
        if self.pending is not None:
            del self._indices.pending[self.pending_index]
            self.pending.wipe()
            self.pending = None

    # As the responder

    def answer(self, called: Called, message: bytes, now: int) -> Agreed | Drop:
        """Check the rest of an initiation, and answer it. `called` is used up. On success `stamps` has changed."""
        stamp = read_timestamp(called, self.keys, message)
        refusal = self._refusal(stamp, now)
        if refusal is not None:
            called.wipe()
            return refusal
        assert stamp is not None
        index = self._indices.draw()
        response = respond(called, self.keys, self._common.random_bytes(32), index)
        if response is None:
            return Drop.TUNNEL_HANDSHAKE
        self.stamps = self.stamps._replace(received=stamp)
        self._consumed_ns = now
        body, keys = response
        return Agreed(keys, index, called.sender, self._jar.finish(body, now))

    def _refusal(self, stamp: bytes | None, now: int) -> Drop | None:
        """The reason to drop an initiation with this time stamp; None is a stamp that does not authenticate."""
        if stamp is None:
            return Drop.TUNNEL_HANDSHAKE
        if stamp <= self.stamps.received:
            return Drop.TUNNEL_OLD_TIMESTAMP
        return Drop.TUNNEL_TOO_SOON if now - self._consumed_ns < INITIATION_PAUSE_NS else None
