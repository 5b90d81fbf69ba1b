"""The slots: memory, copies, queues; and the room for waiting frames."""

from __future__ import annotations

import copy
import os
import random
import tracemalloc

import pytest
from arp_bench import A_MAC, B_MAC, FRAME_BYTES, OTHER_MAC, OWN_MAC, REQUEST, A, B, Bench, answers, arp_frame, asks

from arp.effects import GaveUp
from arp.port import ArpPort
from arp.table import ArpTable, EntryState
from arp.waiting import WaitingFrames, WaitingLimits
from wire.drop import Drop
from wire.units import address_int, seconds_ns

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("prefix_length", [8, 16, 22, 24, 30, 31, 32])
def test_a24_the_table_has_exactly_one_slot_of_32_bytes_for_each_address(prefix_length: int) -> None:
    table = ArpTable(prefix_length)
    assert table.slots == 2 ** (32 - prefix_length)
    assert table.size_bytes == 32 * table.slots


@pytest.mark.parametrize("prefix_length", [-1, 0, 7, 33])
def test_a_subnet_without_bounds_is_refused(prefix_length: int) -> None:
    with pytest.raises(ValueError, match="8 to 32"):
        ArpTable(prefix_length)


def test_a24_a_scanned_and_flooded_slash_16_stays_below_two_and_a_half_mebibytes() -> None:
    """Every address asked for, timers running, as many frames waiting as may; their own bytes come on top."""
    own = address_int("172.16.0.2")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        port = ArpPort(own, 16, OWN_MAC, {}, random.Random(0))
        network = own & 0xFFFF0000
        for host in range(1, 65535):
            port.hold(network + host, None, FRAME_BYTES, host)
        for host in range(1, 65535, 8):
            port.receive(arp_frame(REQUEST, network + host, A_MAC, own), seconds_ns(0.5) + host)
        assert port.used == 65533
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert port.size_bytes == 2 * MEBIBYTE
    assert port.size_bytes + held - before < 2.5 * MEBIBYTE
    assert sum(1 for _ in port.entries(seconds_ns(1))) == 65533


# pytest-xdist runs workers with threads; the child only touches the table and leaves by _exit
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_has_a_table_of_its_own() -> None:
    """`bridgectl trace` walks in a forked child and must change nothing."""
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    child = os.fork()
    if child == 0:
        bench.hears(asks(A, OTHER_MAC), 5)
        bench.hears(asks(B, B_MAC), 5)
        os._exit(0 if bench.port.used == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (bench.finds(A, 6), bench.finds(B, 6), bench.port.used) == (A_MAC, None, 1)


def test_a_deep_copy_lives_its_own_life() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.holds(B, "frame", 0)
    twin = copy.deepcopy(bench)
    assert twin.hears(answers(B, B_MAC), 0.5) == ["release frame to 02:aa:00:00:00:0b"]
    assert (twin.state(B, 0.5), bench.state(B, 0.5)) == ("reachable", "incomplete")
    assert bench.runs_until(3)[-1] == (3.0, "gave up frame: arp.no_answer")
    assert list(twin.port.entries(0)) != list(bench.port.entries(0))


def test_slots_leave_their_queue_from_any_place() -> None:
    table = ArpTable(24)
    for index in (5, 6, 7, 8):
        table.enter(index, EntryState.STALE, index)
    table.free(6)
    assert list(table.queued(EntryState.STALE)) == [5, 7, 8]
    table.enter(8, EntryState.DELAY, 10)
    table.enter(5, EntryState.STALE, 11)
    assert list(table.queued(EntryState.STALE)) == [7, 5]
    assert list(table.queued(EntryState.DELAY)) == [8]
    table.free(7)
    table.free(5)
    table.free(8)
    assert (table.used, table.next_due()) == (0, None)


def test_a_clock_that_runs_backwards_keeps_the_queues_in_order() -> None:
    table = ArpTable(24)
    table.enter(1, EntryState.STALE, 1000)
    table.enter(2, EntryState.STALE, 10)
    assert (table.since_ns(1), table.since_ns(2)) == (1000, 1000)


def test_bytes_are_bounded_by_address_and_in_all() -> None:
    waiting = WaitingFrames(WaitingLimits(frames_per_address=4, bytes_per_address=100, frames_total=5, bytes_total=150))
    assert waiting.add(1, "huge", 101) == [GaveUp(Drop.ARP_QUEUE_FULL, "huge")]
    assert waiting.add(1, "a", 60) == []
    assert waiting.add(1, "b", 40) == []
    assert waiting.add(1, "c", 50) == [GaveUp(Drop.ARP_SUPERSEDED, "a")]
    assert waiting.add(2, "d", 60) == []
    assert waiting.add(3, "e", 1) == [GaveUp(Drop.ARP_QUEUE_FULL, "e")]
    assert waiting.add(2, "f", 70) == [GaveUp(Drop.ARP_QUEUE_FULL, "f")], "its own frame is kept where that is no help"
    assert waiting.add(2, "g", 55) == [GaveUp(Drop.ARP_SUPERSEDED, "d")]
    assert (waiting.frames, waiting.size_bytes) == (3, 145)
    assert [waiting.take(index) for index in (1, 2, 3)] == [["b", "c"], ["g"], []]
    assert (waiting.frames, waiting.size_bytes) == (0, 0)
