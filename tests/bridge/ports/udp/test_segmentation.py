"""Cutting and joining are used where they were proved, and on no kernel's word (point 7 of the benchmark's wishes)."""

from __future__ import annotations

import errno
import os
from collections import deque

import pytest

from bridge.ports.udp.datagrams import DatagramSocket
from bridge.ports.udp.families import IPV4, IPV6
from bridge.ports.udp.segmentation import SWITCHED_OFF, Segmentation, both, judge, prove
from tunnel.effects import Datagram, Endpoint

LOCALHOST = bytes([127, 0, 0, 1])


class Kernel:
    """A kernel that cuts and joins truly. Those below are wrong in one way each."""

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, int]] = deque()
        self.joins = False

    def send(self, payload: bytes, segment_bytes: int) -> None:
        pieces = self.cut(payload, segment_bytes)
        if self.joins:
            self.queue.append((b"".join(pieces), segment_bytes))
        else:
            self.queue.extend((piece, len(piece)) for piece in pieces)

    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        return [payload[at : at + segment_bytes] for at in range(0, len(payload), segment_bytes)]

    def join(self) -> None:
        self.joins = True

    def receive(self) -> tuple[bytes, int] | None:
        return self.queue.popleft() if self.queue else None


class WithoutTheOption(Kernel):
    """It ignores the size and sends one long datagram."""

    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        return [payload]


class RefusesMany(Kernel):
    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        if len(payload) > 8 * segment_bytes:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().cut(payload, segment_bytes)


class ManglesEqualSegments(Kernel):
    """As 7.0 to 7.1.4: the checksums of the later segments are wrong, so the receiver never sees them."""

    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        pieces = super().cut(payload, segment_bytes)
        return pieces[:1] if len(pieces[-1]) == segment_bytes else pieces


class RepeatsTheFirst(Kernel):
    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        pieces = super().cut(payload, segment_bytes)
        return [pieces[0], *pieces[:-1]]


class LosesTheShortLast(Kernel):
    def cut(self, payload: bytes, segment_bytes: int) -> list[bytes]:
        return [piece for piece in super().cut(payload, segment_bytes) if len(piece) == segment_bytes]


class CannotJoin(Kernel):
    def join(self) -> None:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))


class JoinsWrongly(Kernel):
    def receive(self) -> tuple[bytes, int] | None:
        came = super().receive()
        return (came[0], came[1] + 1) if came and self.joins else came


def test_a_true_kernel_does_both() -> None:
    assert judge(Kernel()) == Segmentation(sends=True, receives=True)


@pytest.mark.parametrize(
    "kernel", [WithoutTheOption, RefusesMany, ManglesEqualSegments, RepeatsTheFirst, LosesTheShortLast]
)
def test_a_kernel_that_cuts_wrongly_is_used_for_neither(kernel: type[Kernel]) -> None:
    """A run that is joined was cut by the peer's kernel, but on loopback ours cuts for both."""
    said = judge(kernel())
    assert (said.sends, said.receives) == (False, False)
    assert said.reason.startswith("UDP_SEGMENT: ")


@pytest.mark.parametrize("kernel", [CannotJoin, JoinsWrongly])
def test_a_kernel_that_joins_wrongly_still_cuts(kernel: type[Kernel]) -> None:
    said = judge(kernel())
    assert (said.sends, said.receives) == (True, False)
    assert said.reason.startswith("UDP_GRO: ")


def test_two_families_have_one_verdict() -> None:
    cuts = Segmentation(sends=True, receives=False, reason="UDP_GRO: refused")
    assert both([Segmentation(sends=True, receives=True), cuts, cuts]) == cuts
    assert both([SWITCHED_OFF, SWITCHED_OFF]) == SWITCHED_OFF


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_this_machine_says_something_that_its_sockets_keep(family: object) -> None:
    """With any verdict here, nothing but `reason` explains an option that is off."""
    said = prove(family)  # type: ignore[arg-type]  # a family, named by pytest's own list
    assert (not said.reason) == (said.sends and said.receives)


@pytest.mark.parametrize("proof", [SWITCHED_OFF, Segmentation(sends=False, receives=True, reason="UDP_SEGMENT: x")])
def test_without_cutting_all_datagrams_arrive_one_by_one(proof: Segmentation) -> None:
    near, far = (DatagramSocket(0, prove=lambda family: proof) for _ in "12")
    try:
        assert near.segmentation == proof
        to_far = Endpoint(LOCALHOST, far.port)
        sent = [bytes([number]) * 1000 for number in range(100)]
        assert not near.send_burst([Datagram(to_far, data) for data in sent])
        path = near.lane_path(to_far)
        assert path is not None
        assert not path.segments
        assert [received[0] for received in far.read_burst(200)] == sent
    finally:
        near.close()
        far.close()
