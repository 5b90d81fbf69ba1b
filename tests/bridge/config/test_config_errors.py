"""Errors that every reader of a configuration gets, with their lines, all at once."""

from __future__ import annotations

import datetime
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.config.load import ConfigError, read

GATEWAY = Path("gateway.toml")

BASE = """\
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
"""


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `route` folder and no list lies beside these files."""
    monkeypatch.chdir(tmp_path)


def errors_of(text: str) -> list[str]:
    try:
        read(text, GATEWAY, "replay")
    except ConfigError as error:
        return error.errors
    return []


def warnings_of(text: str) -> list[str]:
    return read(text, GATEWAY, "replay").warnings


def changed(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


FORWARD = '[[alias.forward]]\non = "{on}"\nprotocol = "{protocol}"\noutside_port = {port}\ninside = "{inside}"\n'


def forward(on: str = "tap1", protocol: str = "tcp", port: object = 8080, inside: str = "192.168.200.3:80") -> str:
    return FORWARD.format(on=on, protocol=protocol, port=port, inside=inside)


def test_the_base_of_these_tests_is_accepted_without_a_warning() -> None:
    assert errors_of(BASE) == []
    assert warnings_of(BASE) == []
    assert errors_of(BASE + forward() + forward(on="vpn") + forward(protocol="udp")) == []


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        # TOML itself
        ("[tap0]\naddress = 192.168.200.2\n", 2, "this is no TOML"),
        ('[tap0]\naddress = "x\n', 2, "this is no TOML"),
        ("[tap0]\nmtu = 1\nmtu = 2\n", 3, "this is no TOML (Cannot overwrite a value)"),
        ("[tap0]\n\n[tap0", 3, "this is no TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, 1, "nested too deep"),
        # Tables, keys, types
        ("[tap7]\na = 1\n", 1, "tap7: unknown key, did you mean "),
        ("x = 1\n", 1, "x: unknown key, known are tap0, tap1, tun0, vpn, offload"),
        (BASE + "[alias]\nudp_timeuot = 300\n", 12, 'alias.udp_timeuot: unknown key, did you mean "udp_timeout"?'),
        (BASE + forward() + 'color = "red"\n', 16, "alias.forward[0].color: unknown key, known are on, protocol,"),
        (BASE + '[peer.hk]\npublickey = "x"\n', 12, 'peer.hk.publickey: unknown key, did you mean "public_key"?'),
        ("tap0 = 3\n", 1, "tap0: 3 is of another type, give a table"),
        ("peer = []\n", 1, "peer: [] is of another type, give a table"),
        ('[[tap0]]\naddress = "1.2.3.4/24"\n', 1, "is of another type, give a table"),
        (BASE + "[alias]\nforward = 1\n", 12, "alias.forward: 1 is of another type, give a list"),
        (BASE + "[alias.forward]\n", 11, "alias.forward: {} is of another type, give a list"),
        (
            BASE + "[alias]\nrefresh_inbound = 1\n",
            12,
            "alias.refresh_inbound: 1 is of another type, give true or false",
        ),
        (BASE + "[alias]\nudp_timeout = 300.0\n", 12, "300.0 is of another type, give a whole number"),
        (BASE + '[alias]\nudp_timeout = "300"\n', 12, '"300" is of another type, give a whole number'),
        (BASE + "[alias]\nudp_timeout = true\n", 12, "true is of another type, give a whole number"),
        (BASE + "[control]\ngroup = 5\n", 12, "5 is of another type, give a string"),
        (BASE + "[control]\nsocket = 5\n", 12, "control.socket: 5 is no string"),
        ("[tap0]\n", 1, 'tap0: "address" is missing, add it as address = '),
        (BASE + '[[alias.forward]]\non = "tap1"\n', 11, 'alias.forward[0]: "inside" is missing'),
        # Addresses
        (changed('"192.168.200.2/24"', '"192.168.200.2"'), 2, '"192.168.200.2" has no prefix length'),
        (changed('"192.168.200.2/24"', '"192.168.200.256/24"'), 2, "is no IPv4 address"),
        (changed('"192.168.200.2/24"', '"192.168.200.2/33"'), 2, '"/33" is no prefix length'),
        (changed('"192.168.200.2/24"', '"192.168.200.2/x"'), 2, '"/x" is no prefix length'),
        (changed('"192.168.200.2/24"', '"fd00::1/64"'), 2, "is no IPv4 address"),
        (
            changed('"192.168.200.2/24"', '"192.168.200.2/31"'),
            2,
            "a /31 is no subnet for this port, give one from /8 to /30",
        ),
        (changed('"192.168.200.2/24"', '"11.168.200.2/7"'), 2, "a /7 is no subnet for this port"),
        (changed('"192.168.200.2/24"', '"192.168.200.0/24"'), 2, "is the network address of 192.168.200.0/24"),
        (changed('"192.168.200.2/24"', '"192.168.200.255/24"'), 2, "is the broadcast address of 192.168.200.0/24"),
        (changed('"192.168.200.2/24"', '"169.254.1.2/24"'), 2, "lies in 169.254.0.0/16, which is never forwarded"),
        (changed('"192.168.192.211/24"', '"192.168.192.0/24"'), 7, "is the network address"),
        (
            changed('"192.168.192.211/24"', '"192.168.200.99/32"'),
            7,
            "192.168.200.99/32 overlaps tap0's 192.168.200.0/24",
        ),
        (changed('"192.168.192.211/24"', '"192.168.1.9/25"'), 7, "192.168.1.0/25 overlaps tap1's 192.168.1.0/24"),
        (changed('"192.168.1.1"', '"192.168.2.1"'), 5, "192.168.2.1 is outside tap1's subnet 192.168.1.0/24"),
        (changed('"192.168.1.1"', '"192.168.1.2"'), 5, "192.168.1.2 is tap1's own address"),
        (changed('"192.168.1.1"', '"192.168.1.255"'), 5, "192.168.1.255 is the broadcast address"),
        (changed('gateway = "192.168.1.1"', ""), 3, 'tap1: "gateway" is missing'),
        (changed('gateway = "192.168.1.1"', "gateway = 1"), 5, "tap1.gateway: 1 is no string"),
        (changed('"192.168.192.210"', '"192.168.192.210/24"'), 9, "without a prefix length"),
        (changed('"192.168.192.210"', '"192.168.192.211"'), 9, "192.168.192.211 is tun0's address too"),
        (changed('"192.168.192.210"', '"192.168.200.2"'), 9, "192.168.200.2 is tap0's address too"),
        (changed('"192.168.192.210"', '"192.168.200.77"'), 9, "lies in tap0's subnet 192.168.200.0/24"),
        (changed('"192.168.192.210"', '"192.168.1.77"'), 9, "lies in tap1's subnet 192.168.1.0/24"),
        (changed('"192.168.192.210"', '"192.168.192.255"'), 9, "is the broadcast address of 192.168.192.0/24"),
        (changed('"192.168.192.210"', '"127.0.0.5"'), 9, "lies in 127.0.0.0/8, which is never forwarded"),
        (changed('node = "hk"', 'node = "../hk"'), 10, '"../hk" is no node name'),
        (changed('node = "hk"', 'node = ""'), 10, '"" is no node name'),
        # Devices
        (changed("[tap1]", 'mac = "01:00:00:00:00:01"\n[tap1]'), 3, "is a group address"),
        (changed("[tap1]", 'mac = "00:00:00:00:00:00"\n[tap1]'), 3, "is no station's address"),
        (changed("[tap1]", 'mac = "02:00:00:00:01"\n[tap1]'), 3, "is no MAC address"),
        (changed("[tap1]", 'mac = "02:00:00:00:00:+1"\n[tap1]'), 3, "is no MAC address"),
        (changed("[tap1]", "mtu = 67\n[tap1]"), 3, "tap0.mtu: 67 is too small, give at least 68"),
        (changed("[tap1]", "mtu = 65522\n[tap1]"), 3, "tap0.mtu: 65522 is too large, give at most 65521"),
        (changed("[tap1]", "arp_timeout = 0\n[tap1]"), 3, "tap0.arp_timeout: 0 is too small, give at least 1"),
        (BASE + "mtu = 65536\n", 11, "vpn.mtu: 65536 is too large, give at most 65535"),
        (changed("[tap1]", 'interface = "sixteen-bytes-xx"\n[tap1]'), 3, "it has 1 to 15 bytes"),
        (changed("[tap1]", 'interface = "a/b"\n[tap1]'), 3, "is no interface name"),
        (changed("[tap1]", 'interface = ".."\n[tap1]'), 3, "is no interface name"),
        (changed("[tap1]", 'interface = ""\n[tap1]'), 3, "is no interface name"),
        (changed("[tap1]", 'interface = "tap1"\n[tap1]'), 4, '"tap1" is the device of tap0 too'),
        (BASE + 'interface = "tun0"\n', 11, '"tun0" is the device of tun0 too'),
        (changed("[tap1]", 'bridge = "tap0"\n[tap1]'), 3, "name the Linux bridge to join"),
        (changed("[tap1]", 'netns = "../x"\n[tap1]'), 3, "is no network namespace"),
        (changed("[tap1]", 'kind = "x"\n[tap1]'), 3, "tap0.kind: unknown key"),
        (changed("[tun0]", 'kind = "veth"\n[tun0]'), 6, '"veth" is none of the choices, give "tap" or "tun"'),
        # Static ARP entries
        (changed("[tap1]", '[tap0.arp]\n"192.168.201.9" = "02:aa:00:00:00:09"\n[tap1]'), 4, "is outside tap0's subnet"),
        (changed("[tap1]", '[tap0.arp]\n"192.168.200.2" = "02:aa:00:00:00:09"\n[tap1]'), 4, "is tap0's own address"),
        (changed("[tap1]", '[tap0.arp]\n"192.168.200.0" = "02:aa:00:00:00:09"\n[tap1]'), 4, "is the network address"),
        (changed("[tap1]", '[tap0.arp]\n"192.168.200.9" = "03:aa:00:00:00:09"\n[tap1]'), 4, "is a group address"),
        (changed("[tap1]", '[tap0.arp]\n"192.168.200.9" = 9\n[tap1]'), 4, 'tap0.arp."192.168.200.9": 9 is no string'),
        (changed("[tap1]", '[tap0.arp]\n"host" = "02:aa:00:00:00:09"\n[tap1]'), 4, '"host" is no IPv4 address'),
        (
            changed("[tap1]", 'mac = "02:aa:00:00:00:09"\narp."192.168.200.9" = "02:aa:00:00:00:09"\n[tap1]'),
            4,
            "is tap0's own MAC address",
        ),
        # Prefixes
        (
            BASE + '[offload]\nbypass = ["10.0.0.0/8",\n"10.0.0.1/8"]\n',
            13,
            'offload.bypass[1]: "10.0.0.1/8" has host bits set',
        ),
        (BASE + '[offload]\nbypass = "10.0.0.0/8"\n', 12, "is of another type, give a list"),
        (BASE + '[alias]\nexempt = ["x"]\n', 12, "is no IPv4 prefix"),
        (BASE + '[peer.hk]\nallowed_ips = ["::/0"]\n', 12, "is IPv6"),
        (BASE + '[offload]\nprefixes = ["gone.txt"]\n', 12, "offload.prefixes[0]: gone.txt: no such file or directory"),
        (BASE + '[offload]\nprefixes = [""]\n', 12, '"" is no path'),
        # Alias
        (BASE + "[alias]\nudp_timeout = 119\n", 12, "alias.udp_timeout: 119 is too small, give at least 120"),
        (BASE + "[alias]\ntcp_established_timeout = 7439\n", 12, "give at least 7440"),
        (BASE + "[alias]\ntcp_transitory_timeout = 239\n", 12, "give at least 240"),
        (BASE + "[alias]\nicmp_timeout = 59\n", 12, "give at least 60"),
        (BASE + "[alias]\nudp_timeout = 3000000000\n", 12, "is too large"),
        (BASE + "[alias]\nmax_links = 0\n", 12, "give at least 1"),
        (BASE + "[alias]\nmax_links_per_host = 0\n", 12, "give at least 1"),
        (BASE + '[alias]\nfiltering = "none"\n', 12, 'give "endpoint-independent" or "address-dependent"'),
        (BASE + '[alias]\nunsolicited_syn = "rst"\n', 12, 'give "silent" or "unreachable"'),
        # Forwards
        (
            BASE + forward(inside="192.168.201.3:80"),
            15,
            "192.168.201.3 is no inside host, give an address in tap0's subnet",
        ),
        (BASE + forward(inside="192.168.200.2:80"), 15, "192.168.200.2 is tap0's own address"),
        (BASE + forward(inside="192.168.200.255:80"), 15, "is the broadcast address"),
        (BASE + forward(inside="192.168.192.210:80"), 15, "or tun0's address 192.168.192.211"),
        (BASE + forward(inside="192.168.200.3"), 15, "is no address and port"),
        (BASE + forward(inside="192.168.200.3:0"), 15, "the port from 1 to 65535"),
        (BASE + forward(inside="192.168.200.3:65536"), 15, "the port from 1 to 65535"),
        (BASE + forward(port=0), 14, "give at least 1"),
        (BASE + forward(port=65536), 14, "give at most 65535"),
        (BASE + forward(protocol="icmp"), 13, 'give "tcp" or "udp"'),
        (BASE + forward(on="tap0"), 12, 'give "tap1" or "vpn"'),
        (
            BASE + forward() + forward(inside="192.168.200.4:80"),
            19,
            "tcp port 8080 of tap1 is forwarded already (line 11)",
        ),
        (BASE + forward(protocol="udp", port=51820) + "[tunnel]\n", 14, "udp port 51820 is tunnel.listen_port"),
        ('[tap0]\naddress = "192.168.200.2/24"\n' + forward(), 4, "there is no [tap1]"),
        (changed('address = "192.168.192.210"\n', "") + forward(on="vpn"), 11, "there is no vpn.address"),
        # The rest
        (BASE + '[icmp]\nmute = ["eth0"]\n', 12, 'icmp.mute[0]: "eth0" is none of the choices, give "tap0", "tap1",'),
        (BASE + "[icmp]\nerrors_per_second = -1\n", 12, "give at least 0"),
        (BASE + '[control]\nmetrics = "9586"\n', 12, "is no host and port"),
        (BASE + "[peer.hk]\npersistent_keepalive = 65536\n", 12, "give at most 65535"),
        (BASE + '[peer."h k"]\n', 11, '"h k" is no node name'),
        (BASE + "[tunnel]\nlisten_port = 0\n", 12, "give at least 1"),
        (BASE + '[tunnel]\nannounce = ["0.0.0.0/0"]\n', 12, "no network behind a node, give prefixes from /8 on"),
        (BASE + '[tunnel]\nannounce = ["127.0.0.0/24"]\n', 12, "127.0.0.0/8 is never forwarded, give a prefix"),
        (BASE + '[tunnel]\nannounce = ["169.0.0.0/8"]\n', 12, "169.254.0.0/16 is never forwarded"),
        (BASE + f"[tunnel]\nannounce = {['9.9.9.9/32'] * 201}\n", 12, "201 prefixes do not fit into one message"),
        (BASE + '[peer.hk]\naccept = ["192.168.200.1/24"]\n', 12, "has host bits set"),
    ],
)
def test_an_error_is_told_with_its_line_and_alone(text: str, line: int, told: str) -> None:
    [message, *more] = errors_of(text)
    assert message.startswith(f"gateway.toml:{line}: ")
    assert told in message
    assert ", " in message.partition(": ")[2] or "did you mean" in message  # what is wrong, what is right
    missing = [one for one in more if "is missing" in one]
    assert more == missing  # a table may lack several keys, nothing else comes in pairs


def test_ports_of_one_bridge_have_macs_of_their_own() -> None:
    mac = 'mac = "02:00:00:00:00:01"\n'
    for one, other, line in (("br0", "br0", 7), ("br0", "br1", 0)):
        text = changed("[tap1]\n", f'{mac}bridge = "{one}"\n[tap1]\nbridge = "{other}"\n{mac}')
        assert [message.partition(" is tap0's")[0] for message in errors_of(text)] == (
            [f"gateway.toml:{line}: tap1.mac: 02:00:00:00:00:01"] if line else []
        )


def test_a_table_is_told_everything_that_it_lacks() -> None:
    for text, lacks in (
        ("[tap1]\n", ["address", "gateway"]),
        ('[tap1]\nkind = "tun"\n', ["address"]),
        ("[tap1]\ngateway = 1\n", ["address"]),
        ("tap1 = 5\n", []),
    ):
        missing = [message for message in errors_of(text) if "is missing" in message]
        assert [message.split('"')[1] for message in missing] == lacks, text


def test_all_errors_are_told_at_once_and_in_order() -> None:
    text = """\
[tap0]
address = "192.168.200.2/24"
mtu = "big"
[tap1]
address = "192.168.200.130/25"
gateway = "192.168.1.1"
nonsense = 1
[tun0]
[alias]
udp_timeout = 5
exempt = ["1.2.3.4/8", "10.0.0.0/8", "x"]
[[alias.forward]]
on = "lan"
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 80
inside = "10.1.2.3:80"
"""
    assert [(message.split(":")[1], message.split(":")[2].strip()) for message in errors_of(text)] == [
        ("3", "tap0.mtu"),
        ("5", "tap1.address"),
        ("6", "tap1.gateway"),
        ("7", "tap1.nonsense"),
        ("8", "tun0"),
        ("10", "alias.udp_timeout"),
        ("11", "alias.exempt[0]"),
        ("11", "alias.exempt[2]"),
        ("12", "alias.forward[0]"),
        ("12", "alias.forward[0]"),
        ("12", "alias.forward[0]"),
        ("13", "alias.forward[0].on"),
    ]  # 18 is not told: tun0's address is unknown, the forward's inside may be it


def test_a_table_that_is_wrong_by_itself_does_not_make_others_look_wrong() -> None:
    text = (
        changed('"192.168.1.2/24"', '"192.168.1.2"').replace('"192.168.192.210"', "7") + forward() + forward(on="vpn")
    )
    assert [message.split(":")[1] for message in errors_of(text)] == ["4", "9"]
    text = changed('"192.168.200.2/24"', '"x"') + forward()
    assert [message.split(":")[1] for message in errors_of(text)] == ["2"]


def test_lines_stay_right_behind_items_that_were_left_out() -> None:
    text = BASE + forward(on="lan") + forward() + forward(inside="192.168.201.3:80", port=81)
    assert [message.split(":")[1] for message in errors_of(text)] == ["12", "25"]
    text = BASE + '[offload]\nprefixes = [\n  1,\n  "gone.txt",\n]\n'
    assert [message.split(":")[1] for message in errors_of(text)] == ["13", "14"]


def test_an_error_is_one_line_whatever_the_value_holds() -> None:
    [message] = errors_of('[tap0]\naddress = """a\n\\u001b[31mb"""\n')
    assert message.isprintable()


def test_a_forward_on_tap1_may_lead_to_what_is_behind_a_peer() -> None:
    peer = '[peer.a]\nallowed_ips = ["10.8.0.0/24", "0.0.0.0/0"]\n'
    assert errors_of(BASE + peer + forward(inside="10.8.0.7:80")) == []
    [message] = errors_of(BASE + peer + forward(on="vpn", inside="10.8.0.7:80"))
    assert "10.8.0.7 is behind a peer" in message
    [message] = errors_of(BASE + peer + forward(inside="10.9.0.7:80"))
    assert "10.9.0.7 is no inside host" in message
    assert "or an address of a peer's allowed_ips" in message
    assert len(errors_of(BASE + forward(inside="10.8.0.7:80"))) == 1


def test_an_exit_node_is_nothing_to_warn_of() -> None:
    text = '[tun0]\naddress = "10.9.0.1/24"\n[tunnel]\n[peer.a]\nallowed_ips = ["10.9.0.2/32"]\n'
    assert warnings_of(text) == []
    tap1 = '[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n'
    assert warnings_of(tap1 + '[peer.a]\nallowed_ips = ["10.9.0.2/32"]\nexit = true\n') == []


def test_other_namespaces_may_repeat_device_names() -> None:
    assert errors_of(changed("[tap1]", 'netns = "lan"\ninterface = "eth0"\n[tap1]\ninterface = "eth0"')) == []


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('[tap0]\naddress = "192.168.200.2/24"\n[offload]\nprefixes = []\n', 3, "nothing is offloaded without [tap1]"),
        (BASE + 'interface = "vpn0"\n[tunnel]\n', 12, "no tunnel is opened: vpn.interface"),
        (
            BASE + '[peer.hk]\nvia = "de"\nendpoint = "9.9.9.9:9"\n[peer.de]\n',
            13,
            "has no effect on a peer that is reached via de",
        ),
        (BASE + "[peer.hk]\n", 11, "nothing is taken from the peer, add allowed_ips"),
        (BASE + 'netns = "x"\n', 11, "has no effect without vpn.interface"),
        (changed("[tun0]", 'kind = "tun"\nbridge = "br1"\n[tun0]'), 7, "has no effect on a port of kind"),
        ('[tun0]\naddress = "10.9.0.1/24"\n[peer.a]\nexit = true\n', 4, "has no effect without [tap1]"),
        (BASE + '[peer.hk]\naccept = ["224.0.0.0/8"]\n', 12, "has no effect: 224.0.0.0/4 is never forwarded"),
        (BASE + '[peer.hk]\naccept = ["192.168.200.0/25"]\n', 12, "it lies in tap0's subnet 192.168.200.0/24"),
        (BASE + '[tunnel]\nannounce = ["192.168.0.0/16"]\n', 12, "vpn.address hides 192.168.200.0/24"),
        (
            BASE + '[peer.a]\nallowed_ips = ["9.0.0.0/8"]\n[peer.b]\nallowed_ips = ["9.0.0.0/8"]\n',
            14,
            "9.0.0.0/8 is routed to a, which names it first",
        ),
        (
            BASE
            + '[peer.a]\nexit = true\nallowed_ips = ["0.0.0.0/0"]\n'
            + '[peer.b]\nexit = true\nallowed_ips = ["0.0.0.0/0"]\n',
            16,
            "0.0.0.0/0 is routed to a, which names it first",
        ),
        ('[tun0]\naddress = "10.9.0.1/24"\n[peer.a]\nallowed_ips = ["0.0.0.0/0"]\n', 4, "routes nothing to the peer"),
        (
            '[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n[peer.a]\nallowed_ips = ["9.0.0.0/8"]\n',
            4,
            "its packets get no further than other peers, add [tun0]",
        ),
    ],
)
def test_what_has_no_effect_is_warned_of(text: str, line: int, told: str) -> None:
    assert any(one.startswith(f"gateway.toml:{line}: ") and told in one for one in warnings_of(text))


def test_a_relay_needs_no_allowed_ips() -> None:
    text = BASE + '[peer.hk]\nvia = "de"\nallowed_ips = ["9.0.0.0/8"]\n[peer.de]\n'
    assert [one for one in warnings_of(text) if "allowed_ips" in one] == []


_scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["192.168.200.2/24", "192.168.1.1", "tap1", "tun", "10.0.0.0/8", "hk", "192.168.200.3:80"]),
    st.datetimes(),
    st.just(datetime.date(2026, 1, 1)),
)
_words = ["tap0", "tap1", "tun0", "vpn", "offload", "tunnel", "peer", "alias", "icmp", "control", "hooks", "address"]
_words += ["arp", "mac", "mtu", "bridge", "netns", "interface", "gateway", "kind", "node", "prefixes", "bypass", "via"]
_words += ["forward", "on", "protocol", "outside_port", "inside", "mute", "exempt", "allowed_ips", "max_links", "hk"]
_trees = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_words), inner, max_size=5)),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(_words), _trees, max_size=5))
def test_no_document_does_anything_but_be_read_or_be_refused(
    monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]
) -> None:
    monkeypatch.setattr(tomllib, "loads", lambda text: document)
    with suppress(ConfigError):
        assert read("", GATEWAY, "replay").path == GATEWAY
    with suppress(ConfigError):
        assert read("", GATEWAY, "run").path == GATEWAY
