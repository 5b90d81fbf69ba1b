"""Demands of `run` and `check` that `replay` does without."""

from __future__ import annotations

import base64
import grp
import os
from pathlib import Path

import pytest

from bridge.config.load import Config, ConfigError, load
from bridge.daemon.hooks import hook_environment
from tunnel.primitives import public_key

KEY_A, KEY_B = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))

PORTS = """\
[tap0]
address = "192.168.200.2/24"
[vpn]
address = "192.168.192.210"
node = "hk"
"""
TUNNEL = '[tunnel]\nprivate_key_file = "private.key"\nname = "home"\n'
PEER = f'[peer.hk]\npublic_key = "{KEY_A}"\nendpoint = "203.0.113.10:51820"\n'
WHOLE = PORTS + TUNNEL + PEER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = tmp_path / "private.key"
    key.write_text(KEY_B + "\n")
    key.chmod(0o600)
    return tmp_path


def checked(folder: Path, text: str) -> Config:
    path = folder / "gateway.toml"
    path.write_text(text)
    assert load(path, "replay")  # a replay demands nothing of what these tests are about
    return load(path, "check")


def errors_of(folder: Path, text: str) -> list[str]:
    try:
        checked(folder, text)
    except ConfigError as error:
        return [message.removeprefix(f"{folder}/") for message in error.errors]
    return []


def test_a_whole_configuration_is_accepted_for_check_and_run(folder: Path) -> None:
    assert checked(folder, WHOLE)
    assert load(folder / "gateway.toml", "run")


def test_an_exit_node_needs_neither_tap0_nor_vpn(folder: Path) -> None:
    assert errors_of(folder, '[tun0]\naddress = "10.9.0.1/24"\n' + TUNNEL + PEER) == []


def test_a_gateway_without_a_tunnel_needs_no_keys(folder: Path) -> None:
    text = '[tap0]\naddress = "192.168.200.2/24"\n[tap1]\naddress = "192.168.1.2/24"\ngateway = "192.168.1.1"\n'
    assert errors_of(folder, text) == []


def test_a_plain_device_behind_vpn_needs_no_tunnel(folder: Path) -> None:
    config = checked(folder, PORTS + 'interface = "vpn0"\nnetns = "far"\n')
    assert config.vpn
    assert (config.vpn.interface, config.vpn.netns, config.vpn.node) == ("vpn0", "far", "hk")
    assert config.warnings == []


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("", ["1: no port is configured, add [tap0]"]),
        (PORTS, ["3: vpn: there is no [tunnel]", '5: vpn.node: "hk" is no peer, add [peer.hk]']),
        (WHOLE.replace('node = "hk"', 'node = "de"'), ['5: vpn.node: "de" is no peer, add [peer.de]']),
        (WHOLE.replace('node = "hk"', ""), ['3: vpn: "node" is missing']),
        (PORTS + PEER, ["3: vpn: there is no [tunnel]", "6: peer: there is no [tunnel]"]),
        (PORTS + "[tunnel]\n" + PEER, ['6: tunnel: "private_key_file" is missing']),
        (WHOLE.replace("private.key", "gone.key"), ["7: tunnel.private_key_file: "]),
        (WHOLE.replace('"home"', '"hk"'), ['8: tunnel.name: "hk" is a peer\'s name too']),
        (WHOLE.replace(f'public_key = "{KEY_A}"\n', ""), ['9: peer.hk: "public_key" is missing']),
        (WHOLE.replace(KEY_A, "..."), ["10: peer.hk.public_key: this is no key, it is 32 bytes in base64"]),
        (WHOLE.replace(KEY_A, KEY_A[4:]), ["10: peer.hk.public_key: "]),
        (WHOLE.replace(KEY_A, "ä"), ["10: peer.hk.public_key: "]),
        (WHOLE.replace(":51820", ""), ['11: peer.hk.endpoint: "203.0.113.10" is no host and port']),
        (
            WHOLE.replace("203.0.113.10", "[fe80::1]"),
            ['11: peer.hk.endpoint: "[fe80::1]:51820" is link-local and names no device'],
        ),
        (
            WHOLE.replace("203.0.113.10", "[fe80::1%eth0]"),
            ['11: peer.hk.endpoint: "[fe80::1%eth0]:51820" is link-local and names no device'],
        ),
        (
            WHOLE.replace("203.0.113.10", "[::ffff:203.0.113.10]"),
            ['11: peer.hk.endpoint: "[::ffff:203.0.113.10]:51820" is an IPv4-mapped IPv6 address'],
        ),
        (WHOLE.replace("203.0.113.10", "[2001:db8:::1]"), ["11: peer.hk.endpoint: "]),
        (WHOLE.replace("203.0.113.10", "[ff02::1]"), ["11: peer.hk.endpoint: "]),
        (WHOLE.replace("203.0.113.10", "[2001:db8::1]"), []),
        (WHOLE + 'preshared_key_file = "gone.psk"\n', ["12: peer.hk.preshared_key_file: "]),
        (WHOLE + 'via = "relay"\n', ['12: peer.hk.via: "relay" is no peer']),
        (
            WHOLE.replace('name = "home"\n', "") + f'via = "de"\n[peer.de]\npublic_key = "{KEY_B}"\n',
            ["11: peer.hk.via: relays need a name of this node, add tunnel.name"],
        ),
        (WHOLE + 'via = "hk"\n', ["12: peer.hk.via: hk via hk is a circle"]),
        (
            WHOLE + f'via = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nvia = "hk"\n',
            ["12: peer.hk.via: hk via de via hk is a circle", "15: peer.de.via: de via hk via de is a circle"],
        ),
        (WHOLE + 'fallback = "de"\n', ['12: peer.hk.fallback: "de" is no peer, add [peer.de]']),
        (WHOLE + 'fallback = "hk"\n', ['12: peer.hk.fallback: "hk" is this peer itself']),
        (
            WHOLE + f'fallback = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nfallback = "hk"\n',
            [
                "12: peer.hk.fallback: hk falls back to de falls back to hk is a circle",
                "15: peer.de.fallback: de falls back to hk falls back to de is a circle",
            ],
        ),
        (WHOLE + f'[peer.de]\npublic_key = "{KEY_A}"\n', ["13: peer.de.public_key: this is the key of hk too"]),
        (  # the last digit of 32 bytes has two bits that nobody reads
            WHOLE + f'[peer.de]\npublic_key = "{KEY_A[:-2]}{chr(ord(KEY_A[-2]) + 1)}="\n',
            ["13: peer.de.public_key: this is the key of hk too"],
        ),
        (WHOLE + '[hooks]\nup = "./gone.sh"\n', ["13: hooks.up: "]),
        (WHOLE + '[hooks]\ndown = "private.key"\n', ["13: hooks.down: "]),
        (WHOLE + '[hooks]\ndown = "."\n', ["13: hooks.down: "]),
        (WHOLE + '[control]\ngroup = "no such group"\n', ['13: control.group: there is no group "no such group"']),
        (WHOLE + f'[control]\nsocket = "/{"s" * 120}"\n', ["13: control.socket: the path has 121 bytes"]),
    ],
)
def test_what_is_missing_is_told(folder: Path, text: str, errors: list[str]) -> None:
    told = errors_of(folder, text)
    assert len(told) == len(errors)
    for message, beginning in zip(told, errors, strict=True):
        assert message.startswith(f"gateway.toml:{beginning}")
        assert ", " in message or ": " in message.partition(": ")[2]


def test_a_chain_of_relays_that_ends_is_accepted(folder: Path) -> None:
    key = base64.b64encode(bytes([3]) * 32).decode()
    text = WHOLE + f'via = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nvia = "us"\n[peer.us]\npublic_key = "{key}"\n'
    assert errors_of(folder, text) == []


def test_relays_that_lead_into_a_circle_elsewhere_are_told_at_the_circle(folder: Path) -> None:
    key = base64.b64encode(bytes([3]) * 32).decode()
    text = WHOLE + f'via = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nvia = "us"\n[peer.us]\npublic_key = "{key}"\n'
    assert [message.split(": ")[1] for message in errors_of(folder, text + 'via = "de"\n')] == [
        "peer.de.via",
        "peer.us.via",
    ]


def test_fallbacks_may_follow_each_other_as_long_as_they_end(folder: Path) -> None:
    key = base64.b64encode(bytes([3]) * 32).decode()
    text = (
        WHOLE
        + f'fallback = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nfallback = "us"\n[peer.us]\npublic_key = "{key}"\n'
    )
    assert errors_of(folder, text) == []
    assert [message.split(": ")[1] for message in errors_of(folder, text + 'fallback = "de"\n')] == [
        "peer.de.fallback",
        "peer.us.fallback",
    ]


EXIT = f"""[tun0]
address = "10.8.0.1/24"
[tunnel]
private_key_file = "private.key"
[peer.home]
public_key = "{KEY_A}"
allowed_ips = ["10.8.0.2/32"]
"""


def test_an_exit_node_needs_no_vpn_and_no_default_node(folder: Path) -> None:
    config = checked(folder, EXIT)
    assert config.warnings == []
    assert (config.has_vpn, config.vpn_mtu, config.tun0_mtu, config.default_node) == (True, 1420, 1420, None)
    with_mtu = checked(folder, EXIT + "[vpn]\nmtu = 1380\n")
    assert (with_mtu.warnings, with_mtu.tun0_mtu) == ([], 1380)


def test_a_private_key_that_others_may_read_is_refused(folder: Path) -> None:
    for mode in (0o640, 0o604, 0o666, 0o610):
        (folder / "private.key").chmod(mode)
        [message] = errors_of(folder, WHOLE)
        assert message.endswith(f"has mode {mode:04o}, others may read the key: chmod 0600")
    for mode in (0o600, 0o400):
        (folder / "private.key").chmod(mode)
        assert errors_of(folder, WHOLE) == []


def test_a_preshared_key_that_others_may_read_is_refused_with_the_line_that_names_it(folder: Path) -> None:
    (folder / "hk.psk").write_text(KEY_A)
    text = WHOLE + 'preshared_key_file = "hk.psk"\n'
    for mode in (0o644, 0o604, 0o640, 0o620, 0o601):
        (folder / "hk.psk").chmod(mode)
        [error] = errors_of(folder, text)
        assert error == (
            f"gateway.toml:12: peer.hk.preshared_key_file: {folder}/hk.psk has mode {mode:04o}, "
            "others may read the key: chmod 0600"
        )
    for mode in (0o600, 0o400):
        (folder / "hk.psk").chmod(mode)
        assert errors_of(folder, text) == []


def test_a_private_and_a_preshared_key_that_others_may_read_are_told_together(folder: Path) -> None:
    (folder / "hk.psk").write_text(KEY_A)
    for name in ("hk.psk", "private.key"):
        (folder / name).chmod(0o644)
    told = errors_of(folder, WHOLE + 'preshared_key_file = "hk.psk"\n')
    assert [error.split(": ")[1] for error in told] == ["tunnel.private_key_file", "peer.hk.preshared_key_file"]


@pytest.mark.parametrize("content", [b"", b"short\n", KEY_A.encode() + b"x", bytes(32), b"\xff" * 44])
def test_a_key_file_without_a_key_is_refused(folder: Path, content: bytes) -> None:
    (folder / "private.key").write_bytes(content)
    [message] = errors_of(folder, WHOLE)
    assert message.startswith("gateway.toml:7: tunnel.private_key_file: ")
    assert "holds no key, it is 32 bytes in base64" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_key_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "private.key").chmod(0)
    [message] = errors_of(folder, WHOLE)
    assert "permission denied" in message


@pytest.mark.parametrize("own", [True, False], ids=["private key", "pre-shared key"])
def test_a_key_file_that_is_a_pipe_is_refused_and_not_waited_for(folder: Path, *, own: bool) -> None:
    os.mkfifo(folder / "pipe", 0o600)
    text = WHOLE.replace("private.key", "pipe") if own else WHOLE + 'preshared_key_file = "pipe"\n'
    [message] = errors_of(folder, text)
    assert message.endswith("/pipe is no regular file, name a key file that can be read")


def test_a_public_key_that_the_tunnel_would_refuse_is_an_error_of_its_line(folder: Path) -> None:
    own = base64.b64encode(public_key(base64.b64decode(KEY_B))).decode()
    [message] = errors_of(folder, WHOLE.replace(KEY_A, own))
    assert message == "gateway.toml:10: peer.hk.public_key: this is our own public key, give the peer's"
    for low in (bytes(32), bytes([1]).ljust(32, b"\0")):
        [message] = errors_of(folder, WHOLE.replace(KEY_A, base64.b64encode(low).decode()))
        assert message.startswith("gateway.toml:10: peer.hk.public_key: this is a point of low order")


def test_two_spellings_of_one_key_are_one_key(folder: Path) -> None:
    spelled = KEY_A[:-2] + chr(ord(KEY_A[-2]) + 1) + "="  # the last two bits are of no byte
    assert base64.b64decode(spelled) == base64.b64decode(KEY_A)
    [message] = errors_of(folder, WHOLE + f'[peer.sg]\npublic_key = "{spelled}"\n')
    assert message.endswith("peer.sg.public_key: this is the key of hk too, each peer has its own")


def test_programs_and_groups_that_are_there_are_accepted(folder: Path) -> None:
    for name in ("up.sh", "down.sh"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    group = grp.getgrgid(os.getegid()).gr_name
    text = WHOLE + f'[hooks]\nup = "./up.sh"\ndown = "{folder}/down.sh"\n[control]\ngroup = "{group}"\n'
    assert errors_of(folder, text) == []


def test_demands_and_other_errors_are_told_together(folder: Path) -> None:
    text = WHOLE.replace(":51820", "") + '[alias]\nudp_timeout = 1\n[offload]\nprefixes = ["china.txt"]\n'
    path = folder / "gateway.toml"
    path.write_text(text)
    (folder / "china.txt").write_text("1.0.1.0/24\n10.0.0.1/8\n")
    with pytest.raises(ConfigError) as error:
        load(path, "check")
    places = [message.removeprefix(f"{folder}/").partition(": ")[0] for message in error.value.errors]
    assert places == ["gateway.toml:11", "gateway.toml:13", "china.txt:2"]


def test_hooks_are_told_the_relay_s_address_where_the_node_is_behind_one(folder: Path) -> None:
    key = base64.b64encode(bytes([3]) * 32).decode()
    text = WHOLE + f'via = "de"\n[peer.de]\npublic_key = "{KEY_B}"\nvia = "us"\n[peer.us]\npublic_key = "{key}"\n'
    config = checked(folder, text + 'endpoint = "203.0.113.77:51820"\n')
    assert hook_environment(config, None)["PEER_IP"] == "203.0.113.77"
