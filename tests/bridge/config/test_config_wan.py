"""Subnets of tap1 as ISPs hand them out, and what lies behind their router."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.load import Config, ConfigError, load
from bridge.config.values import parse_endpoint
from wire.units import address_int

BASE = """\
[tap0]
address = "192.168.200.2/24"
[tap1]
address = "ADDRESS"
gateway = "GATEWAY"
NETWORKS
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = []
"""


def loaded(folder: Path, address: str, gateway: str, more: str = "") -> Config:
    text = BASE.replace("ADDRESS", address).replace("GATEWAY", gateway).replace("NETWORKS", more)
    (folder / "gateway.toml").write_text(text)
    return load(folder / "gateway.toml", "replay")


def target(config: Config, address: str) -> str:
    return routes_from(config).get(address_int(address)).target


@pytest.mark.parametrize(("address", "gateway"), [("203.0.113.0/31", "203.0.113.1"), ("203.0.113.3/31", "203.0.113.2")])
def test_a_link_of_two_addresses_is_a_wan(tmp_path: Path, address: str, gateway: str) -> None:
    """Report 43, RFC 3021."""
    config = loaded(tmp_path, address, gateway)
    assert target(config, gateway) == "tap1"


@pytest.mark.parametrize("gateway", ["100.64.0.1", "203.0.113.1", "192.168.1.1"])
def test_the_router_of_a_host_route_may_lie_anywhere_and_is_reached_by_tap1(tmp_path: Path, gateway: str) -> None:
    """Report 43."""
    config = loaded(tmp_path, "203.0.113.9/32", gateway)
    assert target(config, gateway) == "tap1"
    assert target(config, "203.0.113.9") == "local"


@pytest.mark.parametrize(
    ("address", "gateway", "fault"),
    [
        ("203.0.113.0/31", "203.0.113.0", "is tap1's own address"),
        ("203.0.113.0/31", "203.0.113.2", "is outside tap1's subnet"),
        ("203.0.113.9/32", "203.0.113.9", "is tap1's own address"),
        ("203.0.113.9/32", "192.168.200.9", "lies in tap0's subnet"),
        ("203.0.113.9/32", "127.0.0.1", "lies in 127.0.0.0/8"),
        ("203.0.113.9/24", "198.51.100.1", "is outside tap1's subnet"),
    ],
)
def test_a_router_that_cannot_be_is_refused(tmp_path: Path, address: str, gateway: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        loaded(tmp_path, address, gateway)


def test_what_lies_behind_the_isp_router_goes_there_although_its_range_is_private(tmp_path: Path) -> None:
    """Report 21."""
    config = loaded(
        tmp_path, "192.168.1.2/24", "192.168.1.1", 'networks = ["10.22.0.0/16", "100.64.3.0/24", "192.168.100.1"]'
    )
    for address in ("10.22.1.1", "100.64.3.9", "192.168.100.1"):
        assert target(config, address) == "tap1"
    assert target(config, "10.23.1.1") == "unreachable"
    assert routes_from(config).get(address_int("10.22.1.1")).source.endswith("gateway.toml:6")


@pytest.mark.parametrize(
    ("networks", "fault"),
    [
        ('["192.168.200.128/25"]', "lies in tap0's subnet"),
        ('["127.0.0.0/16"]', "which is never forwarded"),
        ('["10.22.0.0/40"]', "prefix"),
    ],
)
def test_a_range_that_cannot_lie_there_is_refused(tmp_path: Path, networks: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        loaded(tmp_path, "192.168.1.2/24", "192.168.1.1", f"networks = {networks}")


@pytest.mark.parametrize("host", ["wg_server", "my_vpn.example.net", "_vpn.example."])
def test_an_endpoint_may_have_any_name_that_the_resolver_takes(host: str) -> None:
    """Report 15."""
    assert parse_endpoint(f"{host}:51820") == (host, 51820)


def test_an_empty_list_is_told(tmp_path: Path) -> None:
    """Report 30: a failed download leaves an empty list, and all its traffic changes its way."""
    (tmp_path / "list.txt").write_text("# nothing came\n")
    text = BASE.replace("ADDRESS", "192.168.1.2/24").replace("GATEWAY", "192.168.1.1").replace("NETWORKS", "")
    (tmp_path / "gateway.toml").write_text(text.replace("prefixes = []", 'prefixes = ["list.txt"]'))
    (warning,) = load(tmp_path / "gateway.toml", "replay").warnings
    assert "list.txt:1: this list is empty" in warning
