"""Address-dependent filtering (RFC 4787 5, RFC 5382 4.3): which remote addresses a link has sent to.

Bounds: `PER_LINK` addresses a link, `Remotes.limit` in all links beyond the first of each; the link's own oldest one is
forgotten. Most links have one remote, kept as a plain integer.
"""

from __future__ import annotations

from alias.types import Link

PER_LINK = 1024


class Remotes:
    """The memory of all links."""

    __slots__ = ("count", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0

    def note(self, link: Link, remote: int) -> None:
        """The link sends to `remote`."""
        known = link.remotes
        if known is None:
            link.remotes = remote
        elif isinstance(known, int):
            if known == remote:
                return
            if self.count < self.limit:
                self.count += 1
                link.remotes = {known: None, remote: None}
            else:
                link.remotes = remote
        elif remote in known:
            del known[remote]  # the order of the dict is the order of use
            known[remote] = None
        else:
            if len(known) >= PER_LINK or self.count >= self.limit:
                del known[next(iter(known))]
                self.count -= 1
            known[remote] = None
            self.count += 1

    def forget(self, link: Link) -> None:
        """The link has ended."""
        if isinstance(link.remotes, dict):
            self.count -= len(link.remotes) - 1
        link.remotes = None


def admits(link: Link, remote: int) -> bool:
    """True where the link has sent to `remote`. A link that has sent nothing since the filtering was turned on keeps
    the rights it was made with."""
    known = link.remotes
    if known is None:
        return True
    return known == remote if isinstance(known, int) else remote in known
