"""TCP inside a link: one state machine for each remote endpoint.

RFC 7857 2 and RFC 6146 3.5.2: `_NEXT` is the machine; INIT, EST, in-FIN, out-FIN, both-FIN and TRANS are its names as
an operator sees them. RFC 5382 REQ-5: `Sessions.established_ns` and `transitory_ns`. RFC 7857 2.2: a reset leaves the
state for the transitory time, and a later packet revives it; a reset from outside counts only if it is in the window
that the inside announced (`_is_valid_reset`), else it passes and changes nothing. RFC 7857 7.1: a reset with which the
inside answers a stranger makes and refreshes nothing.

A connection is over once both FINs were acknowledged (`_CLOSED`, which is both-FIN to an operator) or a reset has
passed (TRANS). A link with nothing else in it is told to `Sessions.closed`. An acknowledgment counts once both FINs
have been seen: the second FIN repeats the acknowledgment of the first, and all that follows it is walked.

The link's state is that of its longest-living session and its expiry is the maximum: refreshing one remote never
shortens the life of another. Sessions are made by packets from inside only; an inbound SYN that the filter lets through
leaves no state until the inside answers it.

Bounds: `PER_LINK` sessions in a link, `Sessions.limit` in all links beyond the first session of each. What exceeds them
is not followed: its packets pass as ever, and every one from inside keeps the link for the established time.

A session is 32 packed bytes (`_RECORD`): as an object it would be a third of a link's memory.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

from alias.changes import Changes
from alias.closed import FINISHED, OPEN, RESET, Closed
from alias.types import COARSE_BITS, Link, Saved
from wire.ipv4 import Packet
from wire.tcp import ACK, FIN, RST, SYN, Segment, read

if TYPE_CHECKING:
    from alias.compiled.store import CompiledLink

PER_LINK = 64

# States. ANSWERED is an INIT that the inside has answered with SYN+ACK; PICKED and PICKED_FIN are sessions taken up in
# the middle (we, or the link, are younger than the connection): transitory until the outside has been heard. CLOSED is
# a both-FIN whose FINs were both acknowledged.
_INIT, _ANSWERED, _EST, _IN_FIN, _OUT_FIN, _BOTH_FIN, _TRANS, _PICKED, _PICKED_FIN, _CLOSED = range(10)
LABELS = ("INIT", "INIT", "EST", "in-FIN", "out-FIN", "both-FIN", "TRANS", "TRANS", "TRANS", "both-FIN")
_ESTABLISHED = frozenset({_EST, _IN_FIN, _OUT_FIN})
_HALF_CLOSED = frozenset({_IN_FIN, _OUT_FIN, _BOTH_FIN, _PICKED_FIN})
_FIN_SEEN = _HALF_CLOSED | {_CLOSED}
_OVER = {_CLOSED: FINISHED, _TRANS: RESET}

# Events, in the order of the columns below.
_SYN_OUT, _SYN_ACK_OUT, _FIN_OUT, _OUT, _SYN_IN, _SYN_ACK_IN, _FIN_IN, _IN, _RESET = range(9)
_SAME = -1  # passes, and neither state nor timer change
# fmt: off
_NEXT = (
    # SYN out,  SYN+ACK out, FIN out,     other out,   SYN in,   SYN+ACK in, FIN in,     other in,  reset
    (_INIT,     _ANSWERED,   _INIT,       _INIT,       _EST,     _EST,       _SAME,      _SAME,     _TRANS),  # INIT
    (_INIT,     _ANSWERED,   _ANSWERED,   _ANSWERED,   _SAME,    _EST,       _IN_FIN,    _EST,      _TRANS),  # ANSWERED
    (_EST,      _EST,        _OUT_FIN,    _EST,        _EST,     _EST,       _IN_FIN,    _EST,      _TRANS),  # EST
    (_INIT,     _IN_FIN,     _BOTH_FIN,   _IN_FIN,     _IN_FIN,  _IN_FIN,    _IN_FIN,    _IN_FIN,   _TRANS),  # in-FIN
    (_INIT,     _OUT_FIN,    _OUT_FIN,    _OUT_FIN,    _OUT_FIN, _OUT_FIN,   _BOTH_FIN,  _OUT_FIN,  _TRANS),  # out-FIN
    (_INIT,     _ANSWERED,   _BOTH_FIN,   _BOTH_FIN,   _SAME,    _BOTH_FIN,  _BOTH_FIN,  _BOTH_FIN, _SAME),   # both-FIN
    (_INIT,     _ANSWERED,   _OUT_FIN,    _EST,        _SAME,    _SAME,      _IN_FIN,    _EST,      _SAME),   # TRANS
    (_INIT,     _ANSWERED,   _PICKED_FIN, _PICKED,     _SAME,    _SAME,      _IN_FIN,    _EST,      _TRANS),  # PICKED
    (_INIT,     _ANSWERED,   _PICKED_FIN, _PICKED_FIN, _SAME,    _SAME,      _BOTH_FIN,  _OUT_FIN,  _TRANS),  # its FIN
    (_INIT,     _ANSWERED,   _CLOSED,     _CLOSED,     _SAME,    _CLOSED,    _CLOSED,    _CLOSED,   _SAME),   # CLOSED
)
# fmt: on
TABLE = bytes(state & 0xFF for row in _NEXT for state in row)
"""The machine as the compiled part takes it: a byte for each event of each state, 255 for what changes nothing."""

_RECORD = struct.Struct("<IHBBIIIIq")
_EXPIRES = struct.Struct("<q")
_EXPIRES_AT = _RECORD.size - _EXPIRES.size
_ENDPOINT = struct.Struct("<IH")  # the remote endpoint, which the record begins with
_ENDPOINT_BYTES = _ENDPOINT.size
_STATE_AT = _ENDPOINT_BYTES
_SHIFT, _KNOWN = 0x0F, 0x10  # of `_Session.scale`: the inside's window scale; its window is known
_OUT_ACKED, _IN_ACKED = 0x20, 0x40  # of the same: the FIN from inside, or from outside, was acknowledged
_WIDEST_SHIFT = 14  # RFC 7323 2.3: what a connection taken up in the middle may have agreed on
_SEQUENCE = 0xFFFFFFFF


class _Session:
    """A session unpacked, while a packet of it is looked at.

    `sent`: the sequence number behind the inside's SYN, later behind its FIN. `received`: that behind the remote's FIN.
    `acknowledged`, `edge`: what the inside has acknowledged, and the right edge of the window that it offers: a valid
    sequence number from outside lies between them. As long as the remote's sequence numbers are not known, `edge` is
    the width of the window in the inside's SYN.
    """

    __slots__ = ("acknowledged", "edge", "expires_ns", "received", "remote", "remote_port", "scale", "sent", "state")
    remote: int
    remote_port: int
    state: int
    scale: int
    sent: int
    received: int
    acknowledged: int
    edge: int
    expires_ns: int

    def __init__(self, record: bytes) -> None:
        (
            self.remote,
            self.remote_port,
            self.state,
            self.scale,
            self.sent,
            self.received,
            self.acknowledged,
            self.edge,
            self.expires_ns,
        ) = _RECORD.unpack(record)

    def pack(self) -> bytes:
        return _RECORD.pack(
            self.remote,
            self.remote_port,
            self.state,
            self.scale,
            self.sent,
            self.received,
            self.acknowledged,
            self.edge,
            self.expires_ns,
        )


_NEW = bytes(_RECORD.size)


class Sessions:
    """The sessions of all TCP links. Each call says whether the expiry of the link has moved closer."""

    __slots__ = ("changes", "closed", "count", "established_ns", "limit", "transitory_ns")

    def __init__(self, established_ns: int, transitory_ns: int, limit: int, changes: Changes[Link]) -> None:
        """`limit`: of the sessions that stand beside another one in their link. `changes`: is told of links whose
        state changes. `closed`: the links whose connections are over."""
        self.established_ns = established_ns
        self.transitory_ns = transitory_ns
        self.limit = limit
        self.count = 0
        self.changes = changes
        self.closed = Closed()

    def outbound(self, link: Link, packet: Packet, now: int) -> bool:
        """A segment from inside; it may open a session, and the first one of a link always does."""
        segment = read(packet)
        flags = segment.flags
        session = _find(link, packet.destination, packet.destination_port, now)
        if session is None:
            if flags & RST:
                return False
            return self._open(link, packet.destination, packet.destination_port, segment, now)
        if flags & RST:
            event = _RESET
        else:
            _learn_window(session, segment)
            event = _FIN_OUT if flags & FIN else _OUT
            if flags & SYN:
                event = _SYN_ACK_OUT if flags & ACK else _SYN_OUT
        return self._step(link, session, event, now, segment)

    def inbound(self, link: Link, packet: Packet, now: int) -> bool:
        """A segment from outside. A stranger's leaves no trace."""
        session = _find(link, packet.source, packet.source_port, now)
        if session is None:
            return False
        segment = read(packet)
        flags = segment.flags
        if flags & RST:
            if not _is_valid_reset(session, segment):
                return False
            event = _RESET
        elif flags & SYN:
            event = _SYN_ACK_IN if flags & ACK else _SYN_IN
            if session.state in (_INIT, _ANSWERED):
                _agree_window(session, segment)
        else:
            event = _FIN_IN if flags & FIN else _IN
        return self._step(link, session, event, now, segment)

    def confirm(
        self, link: Link, remote: int, remote_port: int, now: int, *, outbound: bool, segment: Segment | None
    ) -> bool:
        """Segments without SYN, FIN and RST that a fast path has forwarded; `segment`: the last one, from inside."""
        session = _find(link, remote, remote_port, now)
        if session is None:
            return False
        if segment is not None:
            _learn_window(session, segment)
        return self._step(link, session, _OUT if outbound else _IN, now)

    def expires_ns(self, link: Link, remote: int, remote_port: int, now: int) -> int:
        """When the session with a remote endpoint expires; 0 where there is none."""
        session = _find(link, remote, remote_port, now)
        return 0 if session is None else session.expires_ns

    def is_closing(self, link: Link, remote: int, remote_port: int) -> bool:
        """Whether a connection was closed by both ends, and an acknowledgment is still to come."""
        return _state(link, remote, remote_port) == _BOTH_FIN

    def is_half_closed(self, link: Link, remote: int, remote_port: int) -> bool:
        """Whether one end of a connection, or both, has sent its FIN, and the connection is not over."""
        return _state(link, remote, remote_port) in _HALF_CLOSED

    def forget(self, link: Link) -> None:
        """The link has ended."""
        self.closed.forget(link)
        if isinstance(link.sessions, dict):
            self.count -= len(link.sessions) - 1
        link.sessions = None

    def _open(self, link: Link, remote: int, remote_port: int, segment: Segment, now: int) -> bool:
        """The first segment to a remote endpoint."""
        session = _Session(_NEW)
        session.remote, session.remote_port = remote, remote_port
        flags = segment.flags
        if flags & SYN:
            session.state = _ANSWERED if flags & ACK else _INIT
        else:
            session.state = _PICKED_FIN if flags & FIN else _PICKED
            session.sent = (segment.sequence + segment.length) & _SEQUENCE
            session.scale = _WIDEST_SHIFT
        _learn_window(session, segment)
        if not self._make_room(link, now):
            session = _Session(_NEW)  # of nobody: the remotes that are not followed, all together
            session.state = _EST
        return self._keep(link, session, now)

    def _make_room(self, link: Link, now: int) -> bool:
        """Whether one more session may be kept; the expired ones of the link give way."""
        sessions = link.sessions
        if sessions is None:
            return True
        if not isinstance(sessions, dict):
            if _EXPIRES.unpack_from(sessions, _EXPIRES_AT)[0] <= now:
                link.sessions = None
                return True
            return self.count < self.limit
        live = {key: record for key, record in sessions.items() if _EXPIRES.unpack_from(record, _EXPIRES_AT)[0] > now}
        if not live:
            self.forget(link)
            return True
        self.count -= len(sessions) - len(live)
        link.sessions = live
        return len(live) < PER_LINK and self.count < self.limit

    def _step(self, link: Link, session: _Session, event: int, now: int, segment: Segment | None = None) -> bool:
        """One move of the machine."""
        state = _NEXT[session.state][event]
        if state == _SAME:
            return False
        if segment is not None and state in _FIN_SEEN:
            state = _note_fin(session, state, event, segment)
        floor_ns = session.expires_ns if state == session.state else 0  # what a fast path tells may be older news
        session.state = state
        return self._keep(link, session, now, floor_ns)

    def _keep(self, link: Link, session: _Session, now: int, floor_ns: int = 0) -> bool:
        """Store the session with its timer restarted, and derive the link's state and expiry."""
        before = session.expires_ns
        state = session.state
        expires = max(now + (self.established_ns if state in _ESTABLISHED else self.transitory_ns), floor_ns)
        session.expires_ns = expires
        record = session.pack()
        sessions = link.sessions
        if sessions is None or (
            not isinstance(sessions, dict) and sessions[:_ENDPOINT_BYTES] == record[:_ENDPOINT_BYTES]
        ):
            link.sessions = record  # the only one, as nearly always
        else:
            if not isinstance(sessions, dict):
                sessions = link.sessions = {_key(sessions): sessions}
            key = _key(record)
            if key not in sessions:
                self.count += 1
            sessions[key] = record
        if link.closing or state in _OVER:
            self.closed.judge(link, _closing(link, state, now), now)
        if expires >= link.expires_ns or not isinstance(link.sessions, dict):
            closer = expires < link.expires_ns
            self._tell(link, state, expires)
            return closer
        if before < link.expires_ns:
            return False  # another session lives longer than this one did, and does
        other = _longest(link.sessions)
        closer = other.expires_ns < link.expires_ns
        self._tell(link, other.state, other.expires_ns)
        return closer

    def _tell(self, link: Link, state: int, expires_ns: int) -> None:
        """Let the link know what its longest-living session says, and whoever writes links down."""
        label = LABELS[state]
        changes = self.changes
        if changes.is_wanted and (label is not link.state or (expires_ns ^ link.expires_ns) >> COARSE_BITS):
            changes.note(link)
        link.state = label
        link.expires_ns = expires_ns

    def restore(self, link: Link, saved: Saved, now: int) -> None:
        """Take up the session of a link that an earlier run had. What was about to open is one taken up in the middle:
        its SYN and the answer may have passed while nobody looked. Other remotes of the link are not known any more:
        together they have a session that nobody is found by, and that keeps the link for as long as it was to live."""
        session = _Session(_NEW)
        session.remote, session.remote_port = saved.remote, saved.remote_port
        session.state = _PICKED if saved.state in (_INIT, _ANSWERED) else saved.state
        session.scale = saved.scale & _SHIFT
        lasts_ns = self.established_ns if session.state in _ESTABLISHED else self.transitory_ns
        session.expires_ns = min(saved.expires_ns, now + lasts_ns)
        link.sessions = record = session.pack()
        if saved.has_others and record[:_ENDPOINT_BYTES] != _NEW[:_ENDPOINT_BYTES] and self.count < self.limit:
            others = _Session(_NEW)
            others.state = _PICKED if session.state in _OVER else session.state
            others.expires_ns = session.expires_ns
            link.sessions = {_key(record): record, 0: others.pack()}
            self.count += 1
        link.expires_ns = session.expires_ns
        link.state = LABELS[session.state]
        if session.state in _OVER:
            self.closed.judge(link, _closing(link, session.state, now), now)


def is_state(number: int) -> bool:
    """True for the number of a state."""
    return 0 <= number < len(LABELS)


def longest(link: Link) -> tuple[int, int, int, int, bool]:
    """Of a TCP link the session that lives longest (remote endpoint, state, window scale), and whether it has more."""
    if link.compiled:
        return cast("CompiledLink", link).longest()
    sessions = link.sessions
    if sessions is None:
        return 0, 0, _PICKED, _WIDEST_SHIFT, False
    if not isinstance(sessions, dict):
        session, has_others = _Session(sessions), False
    else:
        session, has_others = _longest(sessions), len(sessions) > 1
    return session.remote, session.remote_port, session.state, session.scale & _SHIFT, has_others


def _closing(link: Link, state: int, now: int) -> int:
    """How the connections of a link are closed (`Link.closing`). `state`: of the session that was looked at last."""
    sessions = link.sessions
    if state not in _OVER or not isinstance(sessions, dict):
        return _OVER.get(state, OPEN)
    states = {record[_STATE_AT] for record in sessions.values() if _EXPIRES.unpack_from(record, _EXPIRES_AT)[0] > now}
    if not states <= _OVER.keys():
        return OPEN
    return RESET if _TRANS in states else FINISHED


def _longest(sessions: dict[int, bytes]) -> _Session:
    return max(map(_Session, sessions.values()), key=lambda session: session.expires_ns)


def _key(record: bytes) -> int:
    """The remote endpoint of a packed session as one integer."""
    remote, remote_port = _ENDPOINT.unpack_from(record)
    return int(remote << 16 | remote_port)


def _find(link: Link, remote: int, remote_port: int, now: int) -> _Session | None:
    """The live session with a remote endpoint."""
    sessions = link.sessions
    if sessions is None:
        return None
    if isinstance(sessions, dict):
        record = sessions.get(remote << 16 | remote_port)
        if record is None:
            return None
        session = _Session(record)
    else:
        session = _Session(sessions)
        if session.remote != remote or session.remote_port != remote_port:
            return None
    return session if now < session.expires_ns else None


def _state(link: Link, remote: int, remote_port: int) -> int:
    """The state of the session with a remote endpoint, expired or not; -1 where there is none."""
    sessions = link.sessions
    if isinstance(sessions, dict):
        sessions = sessions.get(remote << 16 | remote_port)
    if sessions is None or _ENDPOINT.unpack_from(sessions) != (remote, remote_port):
        return -1
    return sessions[_STATE_AT]


def _learn_window(session: _Session, segment: Segment) -> None:
    """Take in which sequence numbers the inside expects from outside, by a segment of its own."""
    flags = segment.flags
    if flags & SYN:
        session.sent = (segment.sequence + segment.length) & _SEQUENCE
        session.scale = segment.window_scale or 0
        session.edge = segment.window
        if flags & ACK:
            session.acknowledged = segment.acknowledgment
            session.edge = (segment.acknowledgment + segment.window) & _SEQUENCE  # RFC 7323 2.2: not scaled in a SYN
            session.scale |= _KNOWN
        return
    if not flags & ACK:
        return
    edge = (segment.acknowledgment + (segment.window << (session.scale & _SHIFT))) & _SEQUENCE
    if not session.scale & _KNOWN:
        session.acknowledged, session.edge = segment.acknowledgment, edge
        session.scale |= _KNOWN
        return
    if segment.acknowledgment != session.acknowledged and _is_after(segment.acknowledgment, session.acknowledged):
        session.acknowledged = segment.acknowledgment
    if edge != session.edge and _is_after(edge, session.edge):
        session.edge = edge


def _note_fin(session: _Session, state: int, event: int, segment: Segment) -> int:
    """Where the FINs of a connection end, and whether both were acknowledged; the state that follows from it."""
    end = (segment.sequence + segment.length) & _SEQUENCE
    if event == _FIN_OUT and end != session.sent:
        session.sent = end
        session.scale &= ~_OUT_ACKED
    elif event == _FIN_IN and end != session.received:
        session.received = end
        session.scale &= ~_IN_ACKED
    if state != _BOTH_FIN or not segment.flags & ACK:
        return state
    if event in (_SYN_OUT, _SYN_ACK_OUT, _FIN_OUT, _OUT):
        if segment.acknowledgment == session.received:
            session.scale |= _IN_ACKED
    elif segment.acknowledgment == session.sent:
        session.scale |= _OUT_ACKED
    return _CLOSED if session.scale & _IN_ACKED and session.scale & _OUT_ACKED else state


def _agree_window(session: _Session, segment: Segment) -> None:
    """The remote's SYN: scaling holds only if both ask for it, and the inside will expect what follows the SYN."""
    if segment.window_scale is None:
        session.scale &= ~_SHIFT
    if not session.scale & _KNOWN:
        session.acknowledged = (segment.sequence + segment.length) & _SEQUENCE
        session.edge = (session.acknowledged + session.edge) & _SEQUENCE
        session.scale |= _KNOWN


def _is_valid_reset(session: _Session, segment: Segment) -> bool:
    """RFC 9293 3.5.3, RFC 7857 2.2: in the window; for a connection that is only asked for, it acknowledges the SYN."""
    if not session.scale & _KNOWN:
        return bool(segment.flags & ACK) and segment.acknowledgment == session.sent
    offset = (segment.sequence - session.acknowledged) & _SEQUENCE
    return offset <= (session.edge - session.acknowledged) & _SEQUENCE


def _is_after(one: int, other: int) -> bool:
    """RFC 9293 3.4: comparison of sequence numbers."""
    return 0 < ((one - other) & _SEQUENCE) < 0x80000000
