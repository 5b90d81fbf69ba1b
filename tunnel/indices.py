"""The table of the indices by which peers name our sessions and our pending initiations.

An index is 32 random bits, and stands for one thing at a time (WireGuard whitepaper 5.4.2). The table knows the owner
of each index; neither a session nor its keys know a peer, as in wireguard-go's `device/indextable.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from tunnel.session import Session
from wire.drop import Drop

Owner = TypeVar("Owner")


class IndexEntry(Generic[Owner]):
    """A session and the peer that it was agreed with. An entry outlives its place in the table: a burst that was looked
    up before a session ended is still accounted to its owner."""

    __slots__ = ("owner", "session")

    def __init__(self, session: Session, owner: Owner) -> None:
        self.session = session
        self.owner = owner


class IndexTable(Generic[Owner]):
    """Indices that we gave out. `random_bytes(n)`: n unpredictable bytes; `Owner`: a peer.

    `entries`: sessions by index. `pending`: by index, the owner of an initiation that waits for its response.
    """

    __slots__ = ("_random_bytes", "entries", "pending")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self.entries: dict[int, IndexEntry[Owner]] = {}
        self.pending: dict[int, Owner] = {}

    def find(self, receiver: int, counter: int, now: int) -> IndexEntry[Owner] | Drop:
        """The entry that a message names, or the reason to drop the message. Nothing is authenticated yet, and nothing
        changes."""
        entry = self.entries.get(receiver)
        if entry is None:
            return Drop.TUNNEL_UNKNOWN_INDEX
        if entry.session.is_over(now):
            return Drop.TUNNEL_EXPIRED
        return entry if entry.session.window.may_be_new(counter) else Drop.TUNNEL_REPLAY

    def owner_of(self, index: int) -> Owner | None:
        """The owner of a session or a pending initiation; None where the index is not in use."""
        entry = self.entries.get(index)
        return self.pending.get(index) if entry is None else entry.owner

    def draw(self) -> int:
        """An index that is not in use. The caller enters it before it draws another one."""
        while True:
            index = int.from_bytes(self._random_bytes(4), "little")
            if index not in self.entries and index not in self.pending:
                return index

    def enter(self, session: Session, owner: Owner) -> None:
        """The session's local index names it from now on."""
        self.entries[session.local] = IndexEntry(session, owner)

    def remove(self, session: Session) -> None:
        """The session's local index names nothing any more."""
        del self.entries[session.local]

    @property
    def sessions(self) -> dict[int, Session]:
        """All sessions by their index, in the order in which they were entered: a dictionary of its own."""
        return {index: entry.session for index, entry in self.entries.items()}
