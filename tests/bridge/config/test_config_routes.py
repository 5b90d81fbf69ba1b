"""From a configuration and its prefix files to the route table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.load import Config, ConfigError, Purpose, load
from route.lists import parse_prefix
from route.table import Route, RouteTable
from wire.units import address_int

GATEWAY = """\
[tap0]
address = "192.168.200.2/24"
[tap1]
address = "192.168.1.2/24"
gateway = "192.168.1.1"
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = ["china.txt"]
bypass = [
  "114.114.115.0/24",
]
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, so that names in messages are short."""
    monkeypatch.chdir(tmp_path)
    write("china.txt", "114.114.112.0/21\n1.0.1.0/24 # a comment\n")
    return tmp_path


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)


def loaded(text: str = GATEWAY, purpose: Purpose = "replay") -> Config:
    write("gateway.toml", text)
    return load(Path("gateway.toml"), purpose)


def routes(text: str = GATEWAY) -> RouteTable:
    return routes_from(loaded(text))


def at(table: RouteTable, address: str) -> Route:
    route = table.get(address_int(address))
    assert table.target(address_int(address)) == route.target
    return route


def errors_of(text: str, purpose: Purpose = "replay") -> list[str]:
    with pytest.raises(ConfigError) as error:
        loaded(text, purpose)
    return error.value.errors


@pytest.mark.parametrize(
    ("address", "prefix", "target", "source"),
    [
        ("192.168.200.2", "192.168.200.2/32", "local", "gateway.toml:2"),
        ("192.168.1.2", "192.168.1.2/32", "local", "gateway.toml:4"),
        ("192.168.192.210", "192.168.192.210/32", "local", "gateway.toml:9"),
        ("192.168.192.211", "192.168.192.211/32", "tun0", "gateway.toml:7"),
        ("192.168.192.5", "192.168.192.0/24", "vpn:hk", "gateway.toml:7"),
        ("192.168.200.3", "192.168.200.0/24", "tap0", "gateway.toml:2"),
        ("192.168.1.1", "192.168.1.0/24", "tap1", "gateway.toml:4"),
        ("192.168.200.255", "192.168.200.255/32", "unreachable", "built-in"),
        ("192.168.1.0", "192.168.1.0/32", "unreachable", "built-in"),
        ("114.114.114.114", "114.114.112.0/21", "tap1", "china.txt:1"),
        ("1.0.1.77", "1.0.1.0/24", "tap1", "china.txt:2"),
        ("114.114.115.115", "114.114.115.0/24", "vpn:hk", "gateway.toml:14"),
        ("8.8.8.8", "0.0.0.0/0", "vpn:hk", "vpn.node"),
        ("10.0.0.1", "10.0.0.0/8", "unreachable", "built-in"),
        ("127.0.0.1", "127.0.0.0/8", "unreachable", "built-in"),
    ],
)
def test_a_destination_goes_where_the_documentation_says(address: str, prefix: str, target: str, source: str) -> None:
    assert at(routes(), address) == (prefix, target, source)


def test_edges_of_connected_subnets_are_never_forwarded() -> None:
    table = routes()
    assert table.is_never_forwarded(address_int("192.168.200.255"))
    assert table.is_never_forwarded(address_int("192.168.1.0"))
    assert table.is_never_forwarded(address_int("192.168.192.255"))
    assert not table.is_never_forwarded(address_int("192.168.192.1"))


def test_route_files_send_their_prefixes_to_their_node_and_come_before_other_lists() -> None:
    write("route/de", "8.8.8.0/24\n# a comment\n1.0.1.0/24\n10.7.0.0/16\n")
    write("route/hk", "9.9.9.9\n")
    table = routes()
    assert at(table, "8.8.8.8") == ("8.8.8.0/24", "vpn:de", "route/de:1")
    assert at(table, "1.0.1.1") == ("1.0.1.0/24", "vpn:de", "route/de:3")
    assert at(table, "10.7.0.1") == ("10.7.0.0/16", "vpn:de", "route/de:4")
    assert at(table, "9.9.9.9") == ("9.9.9.9/32", "vpn:hk", "route/hk:1")


def test_the_route_folder_may_be_another_one() -> None:
    write("nodes/de", "8.8.8.0/24\n")
    write("route/us", "8.8.8.0/24\n")
    table = routes(GATEWAY + '[tunnel]\nroutes = "nodes"\n')
    assert at(table, "8.8.8.8") == ("8.8.8.0/24", "vpn:de", "nodes/de:1")


def test_hidden_files_backups_and_folders_are_no_nodes() -> None:
    for name in (".hk.swp", "hk~", "#hk#", "hk.bak", "hk.orig", "hk.tmp"):
        write(f"route/{name}", "garbage\n")
    Path("route/old").mkdir()
    assert loaded().prefix_files.nodes == {}


def test_a_missing_route_folder_matters_only_where_it_was_asked_for() -> None:
    assert loaded(GATEWAY + "[tunnel]\n").prefix_files.nodes == {}
    config = loaded(GATEWAY + '[tunnel]\nroutes = "gone"\n')
    assert any(warning.startswith("gateway.toml:17: tunnel.routes: gone: no such file") for warning in config.warnings)
    errors = errors_of(GATEWAY + '[tunnel]\nroutes = "gone"\n', "check")
    assert any(message.startswith("gateway.toml:17: tunnel.routes: gone: no such file") for message in errors)


def test_a_route_folder_counts_only_where_there_can_be_nodes() -> None:
    write("route/de", "8.8.8.0/24\n")
    assert loaded('[tap0]\naddress = "192.168.200.2/24"\n').prefix_files.nodes == {}


def test_a_file_for_an_unknown_node_is_refused_where_peers_are_known() -> None:
    write("route/de", "8.8.8.0/24\n")
    errors = errors_of(GATEWAY + "[tunnel]\n[peer.hk]\n", "check")
    assert 'route/de:1: there is no peer "de", add [peer.de] or name the file after one that is there' in errors
    assert at(routes(GATEWAY + "[tunnel]\n[peer.hk]\n"), "8.8.8.8").target == "vpn:de"
    write("gateway.toml", GATEWAY.replace('node = "hk"', 'node = "hk"\ninterface = "vpn0"'))
    assert load(Path("gateway.toml"), "check")


def test_a_file_that_cannot_be_a_nodes_is_refused() -> None:
    write("route/h k", "8.8.8.0/24\n")
    assert errors_of(GATEWAY) == ["route/h k:1: this is no name of a node, name the file after a [peer.NAME]"]


def test_bad_lines_are_told_with_their_own_file_and_line() -> None:
    write("china.txt", "1.0.1.0/24\n1.0.1.1/24\n\nx\n")
    write("route/hk", "::/0\n")
    assert [message.partition(": ")[0] for message in errors_of(GATEWAY)] == [
        "china.txt:2",
        "china.txt:4",
        "route/hk:1",
    ]


def test_a_list_that_is_no_text_is_told_with_its_line_and_a_byte_order_mark_is_not() -> None:
    Path("china.txt").write_bytes(b"1.0.1.0/24\n\xff\xfe\n")
    assert errors_of(GATEWAY) == ["china.txt:2: this is no UTF-8 text, give one prefix a line"]
    Path("china.txt").write_bytes(b"\xef\xbb\xbf1.0.1.0/24\r\n")
    assert at(routes(), "1.0.1.1").source == "china.txt:1"


def test_missing_and_unreadable_lists_are_told_at_the_line_that_names_them() -> None:
    text = GATEWAY.replace('["china.txt"]', '[\n  "china.txt",\n  "gone.txt",\n  "."\n]')
    assert [message.split(": ")[:3] for message in errors_of(text)] == [
        ["gateway.toml:14", "offload.prefixes[1]", "gone.txt"],
        ["gateway.toml:15", "offload.prefixes[2]", "."],
    ]


def test_allowed_ips_narrower_than_everything_are_routed_to_their_peer() -> None:
    peers = '[tunnel]\n[peer.de]\nallowed_ips = ["0.0.0.0/0",\n"10.8.0.0/24", "1.0.1.0/24"]\n'
    table = routes(GATEWAY + peers)
    assert at(table, "10.8.0.1") == ("10.8.0.0/24", "vpn:de", "gateway.toml:19")
    assert at(table, "1.0.1.1").target == "vpn:de"
    assert at(table, "8.8.8.8") == ("0.0.0.0/0", "vpn:hk", "vpn.node")


def test_without_vpn_a_lan_gateway_has_no_tunnel() -> None:
    write("route/de", "8.8.8.0/24\n")
    text = GATEWAY.replace('[vpn]\naddress = "192.168.192.210"\nnode = "hk"\n', "")
    table = routes(text + '[peer.de]\nallowed_ips = ["10.8.0.0/24"]\n')
    for address in ("8.8.8.8", "9.9.9.9", "114.114.115.115", "192.168.192.5", "10.8.0.1"):
        assert at(table, address).target == "unreachable", address
    assert at(table, "114.114.114.114").target == "tap1"
    assert at(table, "9.9.9.9") == ("0.0.0.0/0", "unreachable", "built-in")


def test_an_exit_node_reaches_its_peers_networks() -> None:
    table = routes('[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\n[peer.home]\nallowed_ips = ["10.8.0.0/24"]\n')
    assert at(table, "10.8.0.7").target == "vpn:home"
    assert at(table, "10.9.0.1").target == "tun0"
    assert at(table, "8.8.8.8").target == "unreachable"


def test_on_an_exit_node_the_whole_subnet_of_tun0_may_be_a_peers() -> None:
    table = routes('[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\n[peer.home]\nallowed_ips = ["10.9.0.0/24"]\n')
    assert at(table, "10.9.0.7").target == "vpn:home"
    assert at(table, "10.9.0.1").target == "tun0"


def test_without_tap1_lists_have_no_effect() -> None:
    text = GATEWAY.replace('[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n', "")
    table = routes(text)
    assert at(table, "114.114.114.114") == ("0.0.0.0/0", "vpn:hk", "vpn.node")
    assert {total["target"] for total in table.summary()} == {"local", "tap0", "tun0", "unreachable", "vpn:hk"}


def test_without_a_default_node_the_rest_is_unreachable() -> None:
    table = routes(GATEWAY.replace('node = "hk"\n', ""))
    assert at(table, "8.8.8.8") == ("0.0.0.0/0", "unreachable", "built-in")
    assert at(table, "192.168.192.5").target == "unreachable"


def test_entries_without_effect_are_warned_of_once_a_list() -> None:
    write("china.txt", "1.0.1.0/24\n10.0.0.0/8\n192.168.7.0/24\n127.0.0.0/8\n")
    assert loaded().warnings == [
        "china.txt:2: 10.0.0.0/8 is never offloaded, it lies in 10.0.0.0/8 (and 2 more in this file)"
    ]


def test_a_prefix_that_two_nodes_name_is_warned_of_and_goes_to_the_first_name() -> None:
    write("route/de", "9.9.0.0/16\n8.8.8.0/24\n")
    write("route/hk", "8.8.8.0/24\n7.0.0.0/8\n")
    config = loaded()
    assert config.warnings == ["route/de:2: 8.8.8.0/24 is named for hk too, the first name in the alphabet wins"]
    assert at(routes_from(config), "8.8.8.8").target == "vpn:de"


def test_the_files_of_a_configuration_are_those_of_its_reading() -> None:
    config = loaded()
    write("china.txt", "garbage\n")
    assert at(routes_from(config), "1.0.1.1").target == "tap1"


def test_other_lists_may_stand_in_for_the_configured_ones() -> None:
    config = loaded()
    write("new.txt", "1.0.1.0/24\n2.0.0.0/8\n")
    moves = routes_from(config).diff(routes_from(config, offload=[Path("new.txt")]))
    assert moves == [("2.0.0.0/8", "vpn:hk", "tap1"), ("114.114.112.0/21", "tap1", "vpn:hk")]
    write("bad.txt", "x\n")
    with pytest.raises(ConfigError) as error:
        routes_from(config, offload=[Path("bad.txt"), Path("gone.txt")])
    assert [message.partition(": ")[0] for message in error.value.errors] == ["bad.txt:1", "gone.txt:1"]


def test_a_real_offload_list_is_read(shared: Path) -> None:
    prefixes = shared / "data/prefixes"
    table = routes(GATEWAY.replace('"china.txt"', f'"{prefixes}/china.txt", "{prefixes}/cernet.txt"'))
    assert at(table, "114.114.114.114").target == "tap1"
    assert at(table, "8.8.8.8").target == "vpn:hk"
    [tap1] = [total for total in table.summary() if total["target"] == "tap1"]
    assert tap1["addresses"] > 280_000_000


def test_announced_prefixes_are_a_layer_behind_allowed_ips() -> None:
    config = loaded('[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\n[peer.home]\nallowed_ips = ["10.8.0.0/24"]\n[peer.b]\n')
    said = {"b": [parse_prefix("10.8.0.0/24"), parse_prefix("10.8.0.0/25")], "gone": [parse_prefix("9.0.0.0/8")]}
    table = routes_from(config, announced=said)
    assert at(table, "10.8.0.200").target == "vpn:home"
    assert at(table, "10.8.0.1") == ("10.8.0.0/25", "vpn:b", "announced by b")
    assert at(table, "9.9.9.9").target == "unreachable"
