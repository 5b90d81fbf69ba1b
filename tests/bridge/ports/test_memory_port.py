"""The queue port: what other tests lean on."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from bridge.ports.memory import MemoryPort
from wire.drop import Drop


@pytest.fixture
def port() -> Iterator[MemoryPort]:
    port = MemoryPort("tap0", "tap", capacity=2)
    yield port
    port.close()


def is_readable(port: MemoryPort) -> bool:
    return bool(select.select([port], [], [], 0)[0])


def test_frames_come_out_in_the_order_of_their_arrival_and_no_more_than_asked_for(port: MemoryPort) -> None:
    port.deliver(b"1", b"2", b"3")
    assert port.read_burst(2) == [(b"1", None), (b"2", None)]
    assert port.read_burst(2) == [(b"3", None)]
    assert port.read_burst(2) == []


def test_the_descriptor_is_readable_exactly_while_frames_wait(port: MemoryPort) -> None:
    assert not is_readable(port)
    port.deliver(b"1", b"2")
    port.read_burst(1)
    assert is_readable(port)
    port.read_burst(1)
    assert not is_readable(port)


def test_a_full_queue_refuses_with_a_reason(port: MemoryPort) -> None:
    assert [port.write(b"x", None) for _ in range(3)] == [None, None, Drop.PORT_FULL]


def test_what_was_sent_is_a_copy(port: MemoryPort) -> None:
    frame = bytearray(b"ab")
    port.write(frame, None)
    frame[0] = 0
    assert port.sent == [(b"ab", None)]
