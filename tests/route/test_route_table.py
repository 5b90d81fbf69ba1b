"""The rules of "where a destination goes", on both engines."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from route_samples import ENGINES

from route.engine import Engine
from route.lists import parse_prefix, parse_prefixes
from route.table import Layer, Route, RouteTable, is_never_forwarded, node_of, private_range, vpn_target
from wire.units import address_int


def layer(target: str, source: str, *prefixes: str) -> Layer:
    return Layer(target, source, parse_prefixes("\n".join(prefixes), source).entries)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    name: Engine = request.param
    return name


def at(table: RouteTable, address: str) -> Route:
    """The decision by both ways in, which must agree."""
    route = table.get(address_int(address))
    assert table.target(address_int(address)) == route.target
    return route


def test_g26_the_longest_prefix_wins_from_slash_0_to_slash_32(engine: Engine) -> None:
    nested = ["0.0.0.0/0", "8.0.0.0/8", "8.8.0.0/16", "8.8.8.0/24", "8.8.8.8/32"]
    lists = [layer(f"vpn:n{index}", "f", prefix) for index, prefix in enumerate(nested)]
    table = RouteTable(route_files=lists, engine=engine)
    assert table.engine == engine
    destinations = ["9.9.9.9", "8.9.9.9", "8.8.9.9", "8.8.8.9", "8.8.8.8"]
    assert [at(table, address).target for address in destinations] == [f"vpn:n{index}" for index in range(5)]
    assert [at(table, address).prefix for address in destinations] == nested


def test_equal_prefixes_go_by_kind(engine: Engine) -> None:
    kinds = {
        "connected": layer("tap0", "gateway.toml", "10.0.0.0/8"),
        "route_files": layer("vpn:a", "route/a", "10.0.0.0/8"),
        "bypass": layer("vpn:hk", "gateway.toml", "10.0.0.0/8"),
        "allowed_ips": layer("vpn:b", "gateway.toml", "10.0.0.0/8"),
        "offload": layer("tap1", "china.txt", "10.0.0.0/8"),
    }
    seen = []
    while kinds:
        table = RouteTable(
            connected=[kinds["connected"]] if "connected" in kinds else [],
            route_files=[kinds["route_files"]] if "route_files" in kinds else [],
            bypass=[kinds["bypass"]] if "bypass" in kinds else [],
            allowed_ips=[kinds["allowed_ips"]] if "allowed_ips" in kinds else [],
            offload=[kinds["offload"]],
            engine=engine,
        )
        seen.append(at(table, "10.1.2.3").target)
        kinds.pop(next(iter(kinds)))
    assert seen == ["tap0", "vpn:a", "vpn:hk", "vpn:b", "unreachable"]


def test_g26_an_equal_prefix_is_decided_by_the_first_list_and_its_first_line() -> None:
    table = RouteTable(
        offload=[layer("tap1", "one", "1.0.0.0/8", "1.0.0.0/8"), layer("tap1", "two", "2.0.0.0/8", "1.0.0.0/8")]
    )
    assert at(table, "1.2.3.4").source == "one:1"
    assert at(table, "2.2.3.4").source == "two:1"


def test_private_ranges_are_unreachable_and_offload_entries_inside_have_no_effect(engine: Engine) -> None:
    table = RouteTable(
        offload=[layer("tap1", "china.txt", "10.1.0.0/16", "192.168.0.0/16", "100.64.0.0/11", "172.0.0.0/8")],
        default="vpn:hk",
        engine=engine,
    )
    for address, prefix in [
        ("10.1.2.3", "10.0.0.0/8"),
        ("192.168.5.5", "192.168.0.0/16"),
        ("100.64.0.1", "100.64.0.0/10"),
        ("100.127.255.255", "100.64.0.0/10"),
        ("172.16.0.1", "172.16.0.0/12"),
        ("172.31.255.255", "172.16.0.0/12"),
    ]:
        assert at(table, address) == (prefix, "unreachable", "built-in")
        assert not table.is_never_forwarded(address_int(address))  # ICMP 3/0 is owed
    assert at(table, "172.32.0.1") == ("172.0.0.0/8", "tap1", "china.txt:4")
    assert at(table, "100.128.0.1").target == "vpn:hk"
    assert str(private_range(parse_prefix("10.1.0.0/16"))) == "10.0.0.0/8"
    assert private_range(parse_prefix("8.0.0.0/5")) is None


def test_every_other_kind_reaches_into_private_ranges() -> None:
    table = RouteTable(
        connected=[layer("tap0", "gateway.toml", "192.168.200.0/24")],
        route_files=[layer("vpn:a", "route/a", "10.1.0.0/16")],
        bypass=[layer("vpn:hk", "gateway.toml", "172.16.0.0/12")],
        allowed_ips=[layer("vpn:b", "gateway.toml", "100.64.7.0/24")],
    )
    for address, target in [
        ("192.168.200.9", "tap0"),
        ("10.1.0.1", "vpn:a"),
        ("172.16.0.1", "vpn:hk"),
        ("100.64.7.1", "vpn:b"),
        ("10.2.0.1", "unreachable"),
    ]:
        assert at(table, address).target == target, address


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.0.1", "169.254.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
)
def test_g22_some_ranges_are_never_forwarded_whatever_the_lists_say(address: str, engine: Engine) -> None:
    everything = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "224.0.0.0/4", f"{address}/32"]
    table = RouteTable(
        route_files=[layer("vpn:a", "route/a", *everything)],
        offload=[layer("tap1", "china.txt", *everything)],
        default="vpn:hk",
        engine=engine,
    )
    route = at(table, address)
    assert (route.target, route.source) == ("unreachable", "built-in")
    assert table.is_never_forwarded(address_int(address))
    assert is_never_forwarded(address_int(address))


@pytest.mark.parametrize("address", ["1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"])
def test_their_neighbours_are_ordinary(address: str) -> None:
    table = RouteTable(default="vpn:hk")
    assert not table.is_never_forwarded(address_int(address))
    assert at(table, address) == ("0.0.0.0/0", "vpn:hk", "vpn.node")


def test_test_networks_are_ordinary() -> None:
    table = RouteTable(default="vpn:hk")
    for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "223.255.255.255"):
        assert at(table, address).target == "vpn:hk"


def test_the_edges_of_a_subnet_are_never_forwarded(engine: Engine) -> None:
    edges = {address_int("192.168.200.0"), address_int("192.168.200.255")}
    table = RouteTable(connected=[layer("tap0", "g", "192.168.200.0/24")], edges=edges, engine=engine)
    assert at(table, "192.168.200.255") == ("192.168.200.255/32", "unreachable", "built-in")
    assert table.is_never_forwarded(address_int("192.168.200.0"))
    assert not table.is_never_forwarded(address_int("192.168.200.1"))
    assert at(table, "192.168.200.254").target == "tap0"


def test_without_a_default_node_the_rest_is_unreachable() -> None:
    assert at(RouteTable(), "8.8.8.8") == ("0.0.0.0/0", "unreachable", "built-in")


def test_a_list_may_take_everything_that_nobody_else_names() -> None:
    table = RouteTable(offload=[layer("tap1", "all.txt", "0.0.0.0/0")], default="vpn:hk")
    assert at(table, "8.8.8.8") == ("0.0.0.0/0", "tap1", "all.txt:1")
    assert at(table, "10.0.0.1").target == "unreachable"


def test_a_node_is_read_from_its_target_and_from_no_other() -> None:
    assert node_of(vpn_target("hk")) == "hk"
    assert [node_of(target) for target in ("tap0", "tap1", "tun0", "local", "unreachable")] == [None] * 5


def test_the_summary_counts_addresses_where_a_prefix_is_the_longest(engine: Engine) -> None:
    table = RouteTable(
        route_files=[layer("vpn:a", "route/a", "1.0.128.0/17")],
        offload=[layer("tap1", "china.txt", "1.0.0.0/16", "1.0.128.0/18", "1.0.0.0/24", "1.0.0.0/24")],
        default="vpn:hk",
        engine=engine,
    )
    totals = {total["target"]: (total["prefixes"], total["addresses"]) for total in table.summary()}
    assert totals["tap1"] == (3, 2**15 + 2**14)
    assert totals["vpn:a"] == (1, 2**14)
    built_in = 3 * 2**24 + 2**16 + 2 * 2**28 + 2**22 + 2**20 + 2**16
    assert totals["unreachable"] == (9, built_in)
    assert sum(addresses for _, addresses in totals.values()) == 2**32


def test_entries_are_the_whole_table_in_order() -> None:
    table = RouteTable(offload=[layer("tap1", "c", "2.0.0.0/8", "1.0.0.0/16", "1.0.0.0/8")], default="vpn:hk")
    entries = table.entries()
    assert entries[:4] == [
        ("0.0.0.0/0", "vpn:hk"),
        ("0.0.0.0/8", "unreachable"),
        ("1.0.0.0/8", "tap1"),
        ("1.0.0.0/16", "tap1"),
    ]
    assert len(entries) == 4 + 9


def test_real_lists_give_the_same_answers_on_both_engines(shared: Path) -> None:
    lists = [layer("tap1", name, (shared / "data/prefixes" / name).read_text()) for name in ("china.txt", "cmcc.txt")]
    tables = [RouteTable(offload=lists, default="vpn:hk", engine=name) for name in ENGINES]
    rng = random.Random(1)
    for _ in range(20_000):
        address = rng.getrandbits(32)
        assert len({table.target(address) for table in tables}) == 1
    assert at(tables[0], "114.114.114.114").target == "tap1"
    assert at(tables[0], "8.8.8.8").target == "vpn:hk"
