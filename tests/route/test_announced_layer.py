"""The prefixes that peers announce: a layer of the routing table that changes in place."""

from __future__ import annotations

import random

import pytest

from route.engine import BEST, Engine
from route.lists import parse_prefix
from route.table import Layer, RouteTable
from wire.units import address_int

ENGINES: list[Engine] = ["plain"] if BEST == "plain" else ["plain", "pytricia"]


def layer(target: str, *prefixes: str, source: str = "x") -> Layer:
    return Layer(target, source, [(*parse_prefix(text), 0) for text in prefixes])


@pytest.fixture(params=ENGINES)
def table(request: pytest.FixtureRequest) -> RouteTable:
    return RouteTable(
        connected=[layer("tap0", "192.168.200.0/24")],
        route_files=[layer("vpn:jp", "9.9.9.0/24")],
        allowed_ips=[layer("vpn:a", "10.8.0.0/24", "7.0.0.0/8")],
        offload=[layer("tap1", "8.8.8.0/24", "114.0.0.0/8")],
        default="vpn:hk",
        edges=[address_int("192.168.200.255")],
        engine=request.param,
    )


def at(table: RouteTable, address: str) -> str:
    number = address_int(address)
    assert table.target(number) == table.get(number).target
    return table.target(number)


def test_it_stands_behind_allowed_ips_and_before_private_ranges_and_lists(table: RouteTable) -> None:
    target = table.target
    before = table.entries()
    said = ("10.8.0.0/24", "10.0.0.0/8", "8.8.8.0/24", "9.9.9.0/24", "192.168.200.0/24", "5.0.0.0/8")
    table.announce([layer("vpn:b", *said, source="announced by b")])
    assert table.target is target, "the look-up that callers hold stays the same"
    wanted = {
        "10.8.0.1": "vpn:a",
        "10.9.0.1": "vpn:b",
        "8.8.8.8": "vpn:b",
        "9.9.9.9": "vpn:jp",
        "192.168.200.1": "tap0",
    }
    assert {address: at(table, address) for address in wanted} == wanted
    assert table.get(address_int("10.9.0.1")) == ("10.0.0.0/8", "vpn:b", "announced by b")
    assert sum(total["addresses"] for total in table.summary()) == 1 << 32
    table.announce([layer("vpn:c", "10.0.0.0/8")])
    assert [at(table, address) for address in ("10.9.0.1", "8.8.8.8", "5.5.5.5")] == ["vpn:c", "tap1", "vpn:hk"]
    table.announce([])
    assert table.entries() == before
    assert [at(table, address) for address in ("10.9.0.1", "8.8.8.8", "5.5.5.5")] == ["unreachable", "tap1", "vpn:hk"]


def test_the_first_to_announce_a_prefix_has_it_and_the_second_inherits_it(table: RouteTable) -> None:
    table.announce([layer("vpn:b", "5.0.0.0/8"), layer("vpn:c", "5.0.0.0/8", "5.5.0.0/16")])
    assert [at(table, address) for address in ("5.1.1.1", "5.5.1.1")] == ["vpn:b", "vpn:c"]
    table.announce([layer("vpn:c", "5.0.0.0/8")])
    assert at(table, "5.1.1.1") == "vpn:c"


def test_what_is_never_forwarded_and_everything_cannot_be_announced(table: RouteTable) -> None:
    before = table.entries()
    table.announce([layer("vpn:b", "0.0.0.0/0", "127.0.0.0/8", "224.1.0.0/16", "0.0.0.0/8", "192.168.200.255/32")])
    assert table.entries() == before
    assert at(table, "1.2.3.4") == "vpn:hk"


def test_a_table_that_is_built_with_it_is_the_one_that_changed_to_it(table: RouteTable) -> None:
    rng = random.Random(4)
    offload = layer("tap1", *(f"{rng.randrange(1, 100)}.{rng.randrange(256)}.0.0/16" for _ in range(300)))
    changing = RouteTable(offload=[offload], default="vpn:hk", engine=table.engine)
    for _ in range(20):
        said = [
            layer(f"vpn:{peer}", *(f"{rng.randrange(1, 100)}.{rng.randrange(256)}.0.0/16" for _ in range(40)))
            for peer in "abc"
        ]
        changing.announce(said)
        built = RouteTable(offload=[offload], default="vpn:hk", announced=said, engine=table.engine)
        assert changing.entries() == built.entries()
        for address in (rng.randrange(1 << 32) for _ in range(300)):
            assert changing.target(address) == built.target(address) == built.get(address).target
