"""The values of a configuration once it is read: every key, its default, its type."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.config.into_tunnel import networks_from, prefix_of
from bridge.config.load import Config, ConfigError, load, read
from bridge.config.values import parse_endpoint
from route.lists import Prefix
from route.table import NEVER_FORWARDED
from wire.units import address_int

EVERYTHING = """
[tap0]
address = "192.168.200.2/24"
mac     = "02:00:00:00:c8:02"
mtu     = 9000
bridge  = "br0"
netns   = "lan"
interface = "lan0"
arp_timeout = 300
[tap0.arp]
"192.168.200.9" = "02:aa:00:00:00:09"

[tap1]
kind    = "tap"
address = "192.168.1.2/24"
gateway = "192.168.1.1"
bridge  = "br1"
arp_timeout = 1
[tap1.arp]
"192.168.1.1" = "02-BB-00-00-00-01"

[tun0]
address = "192.168.192.211/24"
default_route = true

[vpn]
address = "192.168.192.210"
mtu     = 1400
node    = "hk"

[offload]
prefixes = ["lists/china.txt"]
bypass   = ["203.0.113.0/24", "198.51.100.7"]

[tunnel]
private_key_file = "private.key"
listen_port = 51821
name = "home"
relay = false
routes = "nodes"

[peer.hk]
public_key = "AAAA"
preshared_key_file = "hk.psk"
endpoint = "203.0.113.10:51820"
persistent_keepalive = 25
allowed_ips = ["0.0.0.0/0"]
exit = true

[peer.de]
via = "hk"

[alias]
filtering = "address-dependent"
udp_timeout = 120
tcp_established_timeout = 7441
tcp_transitory_timeout = 241
icmp_timeout = 61
refresh_inbound = true
unsolicited_syn = "unreachable"
max_links = 1
max_links_per_host = 1
exempt = ["203.0.113.0/24"]
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.3:80"
[[alias.forward]]
on = "vpn"
protocol = "udp"
outside_port = 53
inside = "192.168.192.211:5353"

[icmp]
answer_on_tap1 = false
errors_per_second = 0
mute = ["tap1", "vpn"]

[control]
socket = "control.sock"
group  = "adm"
metrics = "127.0.0.1:9586"

[hooks]
up = "./up.sh"
down = "/etc/tapbridge/down.sh"
"""


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def everything(tmp_path: Path) -> Config:
    for folder, file in [("lists", "china.txt"), ("nodes", "hk")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("1.0.1.0/24\n")
    path = tmp_path / "gateway.toml"
    path.write_text(EVERYTHING)
    return load(path, "replay")


def test_every_key_is_read(everything: Config, tmp_path: Path) -> None:
    tap0, tap1, tun0, vpn = everything.tap0, everything.tap1, everything.tun0, everything.vpn
    assert tap0
    assert (tap0.address, tap0.mac, tap0.mtu) == (IPv4Interface("192.168.200.2/24"), b"\x02\0\0\0\xc8\x02", 9000)
    assert (tap0.bridge, tap0.netns, tap0.interface) == ("br0", "lan", "lan0")
    assert (tap0.arp_timeout, everything.tap1.arp_timeout if everything.tap1 else 0) == (300, 1)
    assert tap0.arp == {address_int("192.168.200.9"): b"\x02\xaa\0\0\0\x09"}
    assert tap1
    assert (tap1.kind, tap1.gateway, tap1.interface) == ("tap", IPv4Address("192.168.1.1"), "tap1")
    assert tap1.arp == {address_int("192.168.1.1"): b"\x02\xbb\0\0\0\x01"}
    assert tun0
    assert (tun0.address, tun0.default_route) == (IPv4Interface("192.168.192.211/24"), True)
    assert vpn
    assert (vpn.address, vpn.mtu, vpn.node, vpn.interface) == (IPv4Address("192.168.192.210"), 1400, "hk", None)
    assert everything.tun0_mtu == 1400
    assert everything.offload.prefixes == (tmp_path / "lists/china.txt",)
    assert everything.offload.bypass == (
        Prefix(address_int("203.0.113.0"), 24),
        Prefix(address_int("198.51.100.7"), 32),
    )
    tunnel = everything.tunnel
    assert tunnel
    assert (tunnel.private_key_file, tunnel.listen_port) == (tmp_path / "private.key", 51821)
    assert (tunnel.name, tunnel.relay, tunnel.routes) == ("home", False, tmp_path / "nodes")
    hk, de = everything.peer["hk"], everything.peer["de"]
    assert (hk.public_key, hk.endpoint, hk.persistent_keepalive, hk.exit) == ("AAAA", "203.0.113.10:51820", 25, True)
    assert (hk.allowed_ips, hk.preshared_key_file) == ((Prefix(0, 0),), tmp_path / "hk.psk")
    assert (de.via, de.endpoint, de.persistent_keepalive, de.allowed_ips, de.exit) == ("hk", None, 0, (), False)
    alias = everything.alias
    assert (alias.filtering, alias.unsolicited_syn, alias.refresh_inbound) == ("address-dependent", "unreachable", True)
    timers = (alias.udp_timeout, alias.tcp_established_timeout, alias.tcp_transitory_timeout, alias.icmp_timeout)
    assert timers == (120, 7441, 241, 61)
    assert (alias.max_links, alias.max_links_per_host) == (1, 1)
    assert alias.exempt == (Prefix(address_int("203.0.113.0"), 24),)
    first, second = alias.forward
    assert (first.on, first.protocol, first.outside_port) == ("tap1", "tcp", 8080)
    assert first.inside == (address_int("192.168.200.3"), 80)
    assert (second.on, second.inside.port) == ("vpn", 5353)
    assert everything.icmp.model_dump() == {
        "answer_on_tap1": False,
        "errors_per_second": 0,
        "mute": ("tap1", "vpn"),
    }
    control, hooks = everything.control, everything.hooks
    assert (control.socket, control.group, control.metrics) == (tmp_path / "control.sock", "adm", "127.0.0.1:9586")
    assert (hooks.up, hooks.down) == (tmp_path / "up.sh", Path("/etc/tapbridge/down.sh"))


def test_defaults_are_those_of_the_documentation() -> None:
    config = read('[tap0]\naddress = "192.168.200.2/24"\n', Path("gateway.toml"), "replay")
    assert config.tap0
    assert config.tap0.model_dump(exclude={"address", "mac"}) == {
        "mtu": 1500,
        "bridge": None,
        "netns": None,
        "interface": "tap0",
        "arp_timeout": 30,
        "arp": {},
    }
    assert (config.tap1, config.tun0, config.vpn, config.tunnel, config.peer) == (None, None, None, None, {})
    assert config.alias.model_dump() == {
        "filtering": "endpoint-independent",
        "udp_timeout": 300,
        "tcp_established_timeout": 7440,
        "tcp_transitory_timeout": 240,
        "icmp_timeout": 60,
        "refresh_inbound": False,
        "unsolicited_syn": "silent",
        "max_links": 65536,
        "max_links_per_host": 8192,
        "exempt": (),
        "state_file": None,
        "forward": (),
    }
    assert config.icmp.model_dump() == {"answer_on_tap1": True, "errors_per_second": 1000, "mute": ()}
    assert config.control.model_dump() == {
        "socket": Path("/run/tapbridge/control.sock"),
        "group": "",
        "metrics": "",
    }
    assert config.hooks.model_dump() == {"up": None, "down": None, "lease": None}
    assert config.tun0_mtu == 1500


def test_each_port_alone_and_none_at_all_can_be_read() -> None:
    for text in [
        "",
        '[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n',
        '[tun0]\naddress = "10.9.0.1/24"\n',
        "[vpn]\n",
        '[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\nlisten_port = 7\n[peer.home]\nallowed_ips = ["10.8.0.0/24"]\n',
    ]:
        assert read(text, Path("gateway.toml"), "replay")


def test_a_derived_mac_is_locally_administered_stable_and_its_ports_own() -> None:
    text = '[tap0]\naddress = "192.168.200.2/24"\n[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n'
    first, second = (read(text, Path("gateway.toml"), "replay") for _ in range(2))
    assert first.tap0
    assert first.tap1
    assert second.tap0
    assert first.tap0.mac == second.tap0.mac
    assert first.tap0.mac != first.tap1.mac
    assert first.tap0.mac[0] == first.tap1.mac[0] == 2
    moved = read(text.replace("200.2/24", "200.5/24"), Path("gateway.toml"), "replay")
    assert moved.tap0
    assert moved.tap0.mac != first.tap0.mac


def test_a_raw_ip_offload_port_is_called_tun1_and_needs_no_gateway() -> None:
    config = read('[tap1]\nkind = "tun"\naddress = "192.168.1.2/32"\n', Path("gateway.toml"), "replay")
    assert config.tap1
    assert (config.tap1.interface, config.tap1.gateway) == ("tun1", None)


def test_nothing_changes_once_it_is_read(everything: Config) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        everything.alias.max_links = 2  # type: ignore[misc]  # what the test is about


def test_sources_are_file_and_line(everything: Config, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    assert everything.path == path
    assert everything.source("tap0", "address") == f"{path}:3"
    assert everything.source("alias", "forward", 1, "inside") == f"{path}:73"
    assert everything.line("tap0", "mtu") == 5
    assert everything.line("tun0", "interface") == everything.line("tun0")


def test_a_relative_path_is_kept_where_people_read_it(tmp_path: Path) -> None:
    Path("china.txt").write_text("1.0.1.0/24\n")
    Path("gateway.toml").write_text('[offload]\nprefixes = ["china.txt"]\n[hooks]\nup = "up.sh"\n')
    config = load(Path("gateway.toml"), "replay")
    assert config.source("offload") == "gateway.toml:1"
    assert [prefixes.name for prefixes in config.prefix_files.offload] == ["china.txt"]
    assert config.hooks.up == tmp_path / "up.sh"  # whole, or a program of this name would be looked for elsewhere


def test_a_missing_file_and_a_folder_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        load(tmp_path / "no.toml", "replay")
    [message] = missing.value.errors
    assert message.startswith(f"{tmp_path}/no.toml:1: no such file or directory, ")
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, "replay")


def test_a_byte_order_mark_in_front_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b'\xef\xbb\xbf[tap0]\naddress = "192.168.200.2/24"\n')
    assert load(path, "run").tap0 is not None


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"[tap0]\n# \xff\n")
    with pytest.raises(ConfigError) as error:
        load(path, "replay")
    assert error.value.errors == [f"{path}:2: this is no UTF-8 text, a TOML file is"]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("203.0.113.10:51820", ("203.0.113.10", 51820)),
        ("node.example:1", ("node.example", 1)),
        ("node:65535", ("node", 65535)),
        ("[2001:db8::1]:51820", ("2001:db8::1", 51820)),
        ("203.0.113.10", None),
        ("203.0.113.10:0", None),
        ("203.0.113.10:65536", None),
        ("203.0.113.10:+1", None),
        ("203.0.113.300:1", None),
        ("203.0.113:1", None),
        (":51820", None),
        ("-node:1", None),
        ("a b:1", None),
        ("2001:db8::1:51820", None),
        ("[node]:1", None),
        ("", None),
    ],
)
def test_endpoints(text: str, endpoint: tuple[str, int] | None) -> None:
    assert parse_endpoint(text) == endpoint


UNALIASED = """
[tap0]
address = "192.168.200.2/24"
[tun0]
address = "192.168.192.211/24"
[vpn]
node = "hk"
[tunnel]
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (UNALIASED, ["192.168.200.0/24", "192.168.192.211/32"]),
        (UNALIASED.replace('[tun0]\naddress = "192.168.192.211/24"\n', ""), ["192.168.200.0/24"]),
        (UNALIASED + "announce = []\n", []),
        (UNALIASED + 'announce = ["10.7.0.0/16"]\n', ["10.7.0.0/16"]),
        (UNALIASED.replace('node = "hk"', 'node = "hk"\naddress = "192.168.192.210"'), []),
        ('[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\n', []),
        ('[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\nannounce = ["10.7.0.0/16"]\n', ["10.7.0.0/16"]),
    ],
    ids=["a LAN", "a LAN alone", "off", "as written", "behind an alias", "an exit node", "an exit node that does"],
)
def test_what_is_announced_is_the_lan_where_its_addresses_are_seen_in_the_tunnel(text: str, told: list[str]) -> None:
    assert list(map(str, read(text, Path("gateway.toml"), "replay").announced)) == told


def test_no_peer_may_announce_what_is_ours() -> None:
    text = """
[tap0]
address = "192.168.200.2/24"
[tap1]
address = "192.168.1.2/24"
gateway = "192.168.1.1"
[tun0]
address = "10.8.0.1/24"
[vpn]
address = "10.8.0.9"
node = "hk"
"""
    networks = networks_from(read(text, Path("gateway.toml"), "replay"))
    assert [str(prefix_of(network)) for network in networks.own] == [
        "192.168.200.0/24",
        "192.168.1.0/24",
        "10.8.0.1/32",
        *(f"10.8.0.{edge}/32" for edge in (0, 255)),
        "10.8.0.9/32",
    ]
    assert [str(prefix_of(network)) for network in networks.never] == list(map(str, NEVER_FORWARDED))


def test_the_file_of_the_links_is_beside_the_configuration_or_nowhere(tmp_path: Path) -> None:
    for written, meant in (("links", tmp_path / "links"), ("/var/links", Path("/var/links")), ("", "")):
        config = read(f'[alias]\nstate_file = "{written}"\n', tmp_path / "gateway.toml", "replay")
        assert config.alias.state_file == meant
