"""The part of a link that outlives the process: as little as is needed to go on.

The names (inside endpoint, outside port), when it expires, and of TCP the session that lives longest: its remote, state
and window scale. Sequence numbers are not kept, they would be old by the time they are read: a reset from outside is
judged again once the inside has sent a segment, and changes nothing before (`alias.sessions`). Counters begin at 0.

Expiries are rounded up to steps of 34 s (`COARSE_BITS`): a busy link has news once in so long, and one that was idle at
once. What is rounded already stays as it is, so a link does not live longer with each restart.
"""

from __future__ import annotations

from alias.sessions import longest
from alias.types import COARSE_BITS, Link, Saved
from wire.ipv4 import TCP


def saved(link: Link) -> Saved:
    """The link as it stands; not for static ones, which the configuration brings back."""
    remote, remote_port, state, scale = link.remote, 0, 0, 0
    has_others = False
    if link.protocol == TCP:
        remote, remote_port, state, scale, has_others = longest(link)
    elif link.remotes is not None:
        if isinstance(link.remotes, int):
            remote = link.remotes
        else:
            remote, has_others = next(reversed(link.remotes)), True
    return Saved(
        link.egress,
        link.protocol,
        link.inside,
        link.inside_port,
        link.outside_port,
        remote,
        remote_port,
        state,
        scale,
        has_others,
        link.expires_ns | (1 << COARSE_BITS) - 1,
    )
