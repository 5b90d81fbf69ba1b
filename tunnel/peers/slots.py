"""The three sessions that one peer may have at a time, and their indices.

| slot | its session |
|---|---|
| *current* | packets are sealed under it |
| *previous* | the one before: late packets under it are still accepted |
| *next* | we answered an initiation with it; the first data under it shows that the peer has it too |

| event | effect |
|---|---|
| our initiation was answered | *current* becomes *previous*, the new session becomes *current*; *next* stays |
| we answered an initiation | the new session becomes *next*, in place of an older one |
| data came under *next* | *current* becomes *previous*, *next* becomes *current* |

Where both ends call at once, *next* stays, because the peer may already send under it. WireGuard whitepaper 6.3;
wireguard-go names the same slots `Keypairs`.
"""

from __future__ import annotations

from typing import Generic

from tunnel.indices import IndexTable, Owner
from tunnel.noise import SessionKeys
from tunnel.session import Session


class SessionSlots(Generic[Owner]):
    """The slots of `owner`, a peer. A session that leaves its slot is wiped and its index given back."""

    __slots__ = ("_indices", "_owner", "current", "next", "previous")

    def __init__(self, indices: IndexTable[Owner], owner: Owner) -> None:
        self._indices = indices
        self._owner = owner
        self.current: Session | None = None
        self.previous: Session | None = None
        self.next: Session | None = None

    def room(self, now: int) -> int:
        """The number of packets that may be sent under *current*; 0 without a session."""
        return 0 if self.current is None else self.current.room(now)

    def answered(self, keys: SessionKeys, local: int, remote: int, now: int) -> None:
        """A response to our initiation came: its session is *current* at once."""
        session = self._begin(keys, local, remote, now, is_initiator=True)
        self._retire_current()
        self.current = session

    def answer(self, keys: SessionKeys, local: int, remote: int, now: int) -> None:
        """We answered an initiation: its session is *next*, until the peer confirms it."""
        self._end(self.next)
        self.next = self._begin(keys, local, remote, now, is_initiator=False)

    def confirm(self) -> None:
        """The first data came under *next*: it is *current* from now on."""
        self._retire_current()
        self.current, self.next = self.next, None

    def has_sent(self, quoted: bytes, now: int) -> bool:
        """True where `quoted` begins like a packet that we sent lately (`Session.has_sent`)."""
        return any(one is not None and one.has_sent(quoted, now) for one in (self.current, self.previous))

    def end_all(self) -> None:
        """End the sessions in all slots."""
        for session in (self.current, self.previous, self.next):
            self._end(session)
        self.current = self.previous = self.next = None

    def _begin(self, keys: SessionKeys, local: int, remote: int, now: int, *, is_initiator: bool) -> Session:
        session = Session(keys, local, remote, now, is_initiator=is_initiator)
        self._indices.enter(session, self._owner)
        return session

    def _retire_current(self) -> None:
        self._end(self.previous)
        self.previous = self.current

    def _end(self, session: Session | None) -> None:
        if session is not None:
            self._indices.remove(session)
            session.wipe()
