"""From configuration to devices, and which keys are built into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.into_devices import plans_from
from bridge.config.keys import changed_for_good
from bridge.config.load import Config, load
from bridge.ports.netif import DevicePlan

WHOLE = """\
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
bridge = "br0"
netns = "lan"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tun0]
address = "192.168.192.211/24"
default_route = true
[vpn]
address = "192.168.192.210"
mtu = 1400
node = "hk"
interface = "vpn0"
netns = "exit"
[alias]
udp_timeout = 300
"""


def config(folder: Path, text: str = WHOLE) -> Config:
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, "replay")


def test_every_port_gets_the_device_that_its_table_describes(tmp_path: Path) -> None:
    mac = bytes.fromhex
    assert plans_from(config(tmp_path)) == [
        DevicePlan("tap0", "tap", "tap0", 1500, "lan", bridge="br0", own_mac=mac("02000000c802")),
        DevicePlan("tap1", "tap", "tap1", 1500, own_mac=mac("020000000102")),
        DevicePlan("tun0", "tun", "tun0", 1400, address="192.168.192.211/24", is_default=True),
        DevicePlan("vpn", "tun", "vpn0", 1400, "exit"),
    ]


def test_a_raw_ip_tap1_is_called_tun1_and_has_neither_mac_nor_bridge(tmp_path: Path) -> None:
    text = WHOLE.replace("[tap1]", '[tap1]\nkind = "tun"')
    plans = {plan.port: plan for plan in plans_from(config(tmp_path, text))}
    assert plans["tap1"] == DevicePlan("tap1", "tun", "tun1", 1500)


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("udp_timeout = 300", "udp_timeout = 301", []),
        ('mac = "02:00:00:00:c8:02"', 'mac = "02:00:00:00:c8:03"', ["tap0.mac"]),
        ("[tap1]", "arp_timeout = 60\n[tap1]", ["tap0.arp_timeout"]),
        ("mtu = 1400", "mtu = 1300", ["vpn.mtu"]),
        ('mac = "02:00:00:00:01:02"', 'mac = "02:00:00:00:01:03"', ["tap1.mac"]),
        ('"192.168.1.2/24"', '"192.168.1.3/24"', []),
        ('bridge = "br0"\nnetns = "lan"', 'bridge = "br9"', ["tap0.bridge", "tap0.netns"]),
        ('[tun0]\naddress = "192.168.192.211/24"\ndefault_route = true\n', "", ["tun0"]),
        ("[alias]", '[control]\nsocket = "/run/x.sock"\n[alias]', ["control.socket"]),
        ("[alias]", "[fast_path]\npolice = false\n[alias]", ["fast_path.police"]),
    ],
)
def test_the_keys_that_need_a_restart_are_named(tmp_path: Path, old: str, new: str, keys: list[str]) -> None:
    assert old in WHOLE
    assert list(changed_for_good(config(tmp_path), config(tmp_path, WHOLE.replace(old, new)))) == keys
