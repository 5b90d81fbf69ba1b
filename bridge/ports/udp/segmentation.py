"""Does this kernel cut and join runs of datagrams truly?

`UDP_SEGMENT` sends a run of datagrams in one piece and leaves the cutting to the kernel or the network card; `UDP_GRO`
hands a run over in one piece (udp(7)). Some kernels mangle runs and report no error: 7.0 to 7.1.4 where all segments
are equal. So nothing is taken from a version number. `prove` sends runs over a pair of loopback sockets and compares
what arrives, byte for byte. Each of the two options is used only where its own proof held.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from bridge.ports.udp.families import ANCILLARY_BYTES, GRO_SIZE, IPV4, SEGMENT_SIZE, UDP_GRO, UDP_SEGMENT, Family

SEGMENT_BYTES: Final = 1000
RUNS: Final = ((2, SEGMENT_BYTES), (2, 333), (64, SEGMENT_BYTES), (64, 333))
"""Number of segments, and the length of the last one in bytes. 64 are the most that `UDP_SEGMENT` takes."""
_WAIT_S: Final = 0.5
"""Loopback delivers at once; a busy machine gets this long for a piece."""
_LONGEST_BYTES: Final = 1 << 16
_PATTERN: Final = bytes(at % 251 for at in range(SEGMENT_BYTES + RUNS[-1][0]))


class Segmentation(NamedTuple):
    """`sends`: runs may leave in one piece. `receives`: runs may come in one piece. `reason`: why one of them is off;
    empty where both are on."""

    sends: bool
    receives: bool
    reason: str = ""


SWITCHED_OFF: Final = Segmentation(sends=False, receives=False, reason="tunnel.segmentation is off")


class Pair(Protocol):
    """Two connected sockets. `OSError` from each of them where the kernel cannot."""

    def send(self, payload: bytes, segment_bytes: int) -> None:
        """Send a payload as datagrams of `segment_bytes`; the last may be shorter."""

    def join(self) -> None:
        """Let runs come in one piece from now on."""

    def receive(self) -> tuple[bytes, int] | None:
        """The next bytes, and the length of their segments (all of them where it is one datagram); None where nothing
        comes."""


class LoopbackPair:
    """A pair on the loopback address of a family. Nobody else can send to it, because both ends are connected."""

    def __init__(self, family: Family) -> None:
        address = "127.0.0.1" if family is IPV4 else "::1"
        self._near, self._far = (socket.socket(family.number, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) for _ in "12")
        try:
            for end in (self._near, self._far):
                end.setblocking(False)
                end.bind((address, 0))
            self._near.connect(self._far.getsockname())
            self._far.connect(self._near.getsockname())
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close both ends."""
        self._near.close()
        self._far.close()

    def send(self, payload: bytes, segment_bytes: int) -> None:
        """See `Pair`."""
        self._near.sendmsg([payload], [(socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(segment_bytes))])

    def join(self) -> None:
        """See `Pair`."""
        self._far.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    def receive(self) -> tuple[bytes, int] | None:
        """See `Pair`."""
        waiting = select.poll()
        waiting.register(self._far, select.POLLIN)
        if not waiting.poll(_WAIT_S * 1000):
            return None
        data, ancillary, _, _ = self._far.recvmsg(_LONGEST_BYTES, ANCILLARY_BYTES)
        sizes = [GRO_SIZE.unpack(value)[0] for _, kind, value in ancillary if kind == UDP_GRO]
        return data, sizes[0] if sizes else len(data)


def prove(family: Family) -> Segmentation:
    """Try both options over loopback. Takes a few milliseconds where they work, a second at most where they do not.

    A kernel whose loopback device is down can prove nothing, so both are off there.
    """
    try:
        pair = LoopbackPair(family)
    except OSError as error:
        return Segmentation(sends=False, receives=False, reason=f"loopback proves nothing: {error.strerror}")
    try:
        return judge(pair)
    finally:
        pair.close()


def both(proofs: Iterable[Segmentation]) -> Segmentation:
    """One verdict for several families: an option is on where it is on for each of them."""
    proofs = list(proofs)
    return Segmentation(
        all(proof.sends for proof in proofs),
        all(proof.receives for proof in proofs),
        "; ".join(dict.fromkeys(proof.reason for proof in proofs if proof.reason)),
    )


def judge(pair: Pair) -> Segmentation:
    """Try a pair: first cutting alone, then cutting and joining."""
    reason = _damage(pair, "UDP_SEGMENT")
    if reason:
        return Segmentation(sends=False, receives=False, reason=reason)
    try:
        pair.join()
    except OSError as error:
        return Segmentation(sends=True, receives=False, reason=f"UDP_GRO: {error.strerror}")
    reason = _damage(pair, "UDP_GRO")
    return Segmentation(sends=True, receives=not reason, reason=reason)


def _damage(pair: Pair, option: str) -> str:
    """The first run that does not arrive as it was sent; empty where all do."""
    for count, last_bytes in RUNS:
        sent = [_segment(number, SEGMENT_BYTES) for number in range(count - 1)] + [_segment(count - 1, last_bytes)]
        run = f"{count} segments of {SEGMENT_BYTES} bytes, the last of {last_bytes}"
        try:
            pair.send(b"".join(sent), SEGMENT_BYTES)
            arrived = list(_arriving(pair, count))
        except OSError as error:
            return f"{option}: {run}: {error.strerror}"
        if arrived != sent:
            return f"{option}: this kernel damages {run}"
    return ""


def _segment(number: int, size_bytes: int) -> bytes:
    """A segment that no other one of a run equals."""
    return _PATTERN[number : number + size_bytes]


def _arriving(pair: Pair, count: int) -> Iterator[bytes]:
    """The next `count` datagrams, however many of them come in one piece; fewer where no more come."""
    seen = 0
    while seen < count:
        came = pair.receive()
        if came is None:
            return
        piece, each = came
        for at in range(0, len(piece), max(each, 1)):
            seen += 1
            yield piece[at : at + each]
        if not piece:
            seen += 1
            yield piece
