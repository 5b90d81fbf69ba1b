"""The networks of a port whose address is leased: they come, change and go in the table that is used."""

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


def built(engine: Engine, *more: Layer) -> RouteTable:
    return RouteTable(
        connected=[layer("tap0", "192.168.200.0/24"), *more],
        route_files=[layer("vpn:jp", "10.7.0.0/24", "10.7.0.5/32")],
        allowed_ips=[layer("vpn:a", "10.8.0.0/24")],
        offload=[layer("tap1", "8.8.8.0/24")],
        default="vpn:hk",
        engine=engine,
    )


@pytest.fixture(params=ENGINES)
def table(request: pytest.FixtureRequest) -> RouteTable:
    return built(request.param)


LEASED = (layer("local", "10.7.0.5/32", source="lease"), layer("tap1", "10.7.0.0/24", source="lease"))
EDGES = (address_int("10.7.0.0"), address_int("10.7.0.255"))


def at(table: RouteTable, address: str) -> str:
    number = address_int(address)
    assert table.target(number) == table.get(number).target
    return table.target(number)


def test_d9_leased_networks_stand_before_route_files_and_private_ranges(table: RouteTable) -> None:
    target, before = table.target, table.entries()
    table.connect(LEASED, EDGES)
    assert table.target is target, "the look-up that callers hold stays the same"
    assert [at(table, address) for address in ("10.7.0.5", "10.7.0.9", "10.7.0.255")] == [
        "local",
        "tap1",
        "unreachable",
    ]
    assert table.is_never_forwarded(EDGES[1])
    assert table.get(address_int("10.7.0.9")) == ("10.7.0.0/24", "tap1", "lease")
    assert sum(total["addresses"] for total in table.summary()) == 1 << 32
    table.connect([layer("tap1", "10.9.0.0/16")])
    assert [at(table, address) for address in ("10.7.0.5", "10.9.0.1")] == ["vpn:jp", "tap1"]
    assert not table.is_never_forwarded(EDGES[1])
    table.connect([])
    assert table.entries() == before


def test_d13_a_leased_network_never_takes_what_a_port_of_the_configuration_has(table: RouteTable) -> None:
    table.connect([layer("tap1", "192.168.200.0/24", "127.0.0.0/8", "0.0.0.0/0")])
    assert [at(table, address) for address in ("192.168.200.1", "1.2.3.4")] == ["tap0", "vpn:hk"]


def test_d9_what_peers_announce_and_what_is_leased_come_and_go_beside_each_other(table: RouteTable) -> None:
    rng = random.Random(5)
    announced: list[Layer] = []
    leased: list[Layer] = []
    for _ in range(60):
        prefixes = [f"10.{rng.randrange(6, 10)}.{rng.randrange(3)}.0/24" for _ in range(3)]
        if rng.random() < 0.5:
            announced = [layer("vpn:b", *prefixes)] if rng.random() < 0.8 else []
            table.announce(announced)
        else:
            leased = [layer("tap1", *prefixes)] if rng.random() < 0.8 else []
            table.connect(leased)
        fresh = built(table.engine, *leased)
        fresh.announce(announced)
        assert table.entries() == fresh.entries()
        for address in (rng.randrange(10 << 24 | 6 << 16, 10 << 24 | 10 << 16) for _ in range(50)):
            assert table.target(address) == fresh.target(address)
