"""The flow table when it is full: who gives way, and that nobody can make this dear."""

from __future__ import annotations

import time

from flow.table import FORGET_NS, IDLE_NS, FlowTable
from wire import ipv4


def see(table: FlowTable, number: int, now: int) -> None:
    table.saw("tap0", "tap1", ipv4.UDP, (1, 5000), (number, 53), 100, now)


def remotes(table: FlowTable, now: int) -> list[int]:
    return [flow.outside[0] for flow in table.live(now)]


def test_the_first_idle_flow_gives_way_and_those_in_use_stay() -> None:
    table = FlowTable(limit=3)
    for number in (1, 2, 3):
        see(table, number, 0)
    see(table, 1, IDLE_NS)
    see(table, 4, IDLE_NS + 1)
    assert remotes(table, IDLE_NS + 1) == [1, 3, 4]
    see(table, 5, IDLE_NS + 1)
    assert remotes(table, IDLE_NS + 1) == [1, 4, 5]


def test_with_every_flow_in_use_a_new_one_is_not_recorded() -> None:
    table = FlowTable(limit=3)
    for number in (1, 2, 3, 4):
        see(table, number, 0)
    assert remotes(table, 0) == [1, 2, 3]


def test_flows_that_were_forgotten_as_idle_do_not_stand_in_line_any_more() -> None:
    table = FlowTable(limit=3)
    for number in (1, 2):
        see(table, number, 0)
    see(table, 3, 6 * IDLE_NS)
    assert remotes(table, 6 * IDLE_NS) == [3]
    for number in (4, 5, 6):
        see(table, number, 6 * IDLE_NS)
    assert remotes(table, 6 * IDLE_NS) == [3, 4, 5]


def test_a_new_flow_costs_no_more_where_the_table_is_full() -> None:
    """A host that sends to ever new remotes fills it; what it sends next must not cost fifty times as much."""
    table = FlowTable()

    def cost_s(first: int, flows: int) -> float:
        start = time.process_time()
        for number in range(first, first + flows):
            see(table, number, 0)
        return (time.process_time() - start) / flows

    filling = cost_s(0, table.limit)
    assert cost_s(table.limit, 5_000) < 10 * filling


def test_idle_flows_are_forgotten_when_new_ones_come_though_nobody_asks() -> None:
    table = FlowTable()
    for number in range(100):
        see(table, number, 0)
    see(table, 100, FORGET_NS + 1)
    assert len(table) == 1
