"""Files of wg-quick: what is read out of them, and what they become."""

from __future__ import annotations

import base64
import random
import re
import tomllib
from ipaddress import IPv4Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.errors import ConfigError
from bridge.config.wgquick.importing import Imported, imported
from bridge.config.wgquick.reading import WgQuick, read
from tunnel.primitives import public_key

PRIVATE = bytes(range(32))
SECRET = base64.b64encode(PRIVATE).decode()
PSK = base64.b64encode(bytes(range(100, 132))).decode()


def key(number: int) -> str:
    """A public key that somebody could have."""
    return base64.b64encode(public_key(bytes([number]) * 32)).decode()


HEAD = f"[Interface]\nPrivateKey = {SECRET}\nAddress = 10.7.0.2/24\n"


def errors(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text.encode() if isinstance(text, str) else text, "wg0.conf")
    return caught.value.errors


def made(text: str, lan: str | None = None) -> Imported:
    return imported(read(text.encode(), "wg0.conf"), "wg0.conf", None if lan is None else IPv4Interface(lan))


def tables(text: str, lan: str | None = None) -> dict[str, Any]:
    return tomllib.loads(made(text, lan).text())


# Reading


def test_keys_in_any_case_with_any_blanks_comments_and_line_ends() -> None:
    text = (
        f"\ufeff# a comment\r\n[INTERFACE] # here\r\n  privatekey={SECRET}#secret\r\n"
        "\taddress = 10.0.0.2/24 , 10.0.1.2,fd00::2/64\r\nAddress=10.0.2.2/32\r\nLISTENPORT = 51821\r\nmtu=1380\r\n"
        f"[peer]\r\npublickey= {key(1)} \r\nallowedips=10.0.0.1/24,::/0\r\nAllowedIPs = 1.2.3.4\r\n"
        f"endpoint = [2001:db8::1]:51820\r\npersistentkeepalive = off\r\n[Peer]\nPublicKey = {key(2)}\nAllowedIPs ="
    )
    found = read(text.encode(), "x")
    assert found.private_key == PRIVATE
    assert [str(address) for _, address in found.addresses] == [
        "10.0.0.2/24",
        "10.0.1.2/32",
        "fd00::2/64",
        "10.0.2.2/32",
    ]
    assert (found.listen_port, found.mtu, found.table) == (51821, 1380, "auto")
    first, second = found.peers
    assert [str(prefix) for prefix in first.allowed_ips] == ["10.0.0.0/24", "::/0", "1.2.3.4/32"]
    assert (first.endpoint, first.persistent_keepalive_s) == ("[2001:db8::1]:51820", 0)
    assert (second.allowed_ips, second.endpoint) == ((), None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[Peer]\n# hk\nPublicKey = KEY", "hk"),
        ("[Peer] # hk\nPublicKey = KEY", "hk"),
        ("# hk\n[Peer]\nPublicKey = KEY", "hk"),
        ("# Name = hk\n[Peer]\nPublicKey = KEY", "hk"),
        ("[Peer]\n# two words\n# hk\nPublicKey = KEY", "hk"),
        ("# far away\n# hk\n\n[Peer]\nPublicKey = KEY", ""),
        ("[Peer]\nPublicKey = KEY\n# hk", ""),
        ("[Peer]\n# PersistentKeepalive = 25\n# 10.0.0.1\nPublicKey = KEY", ""),
        ("[Peer]\n# " + "a" * 40 + "\nPublicKey = KEY", ""),
    ],
)
def test_a_comment_that_can_be_a_name_names_its_peer(text: str, name: str) -> None:
    (peer,) = read((HEAD + text.replace("KEY", key(1))).encode(), "x").peers
    assert peer.name == name


def test_all_errors_are_told_at_once_with_their_lines() -> None:
    told = errors(
        f"Address = 1.2.3.4\n[Interface]\nPrivateKey = {SECRET[:-4]}\nPrivateKey = {SECRET}\nAddress = 300.1.1.1/24\n"
        "ListenPort = 70000\nMTU = big\nTable = a b\nSaveConfig = maybe\nFwMark = -1\nEndpoint = a:1\nMTU\n"
        "[Peer]\nAllowedIPs = 10.0.0.0/33\nEndpoint = 1.2.3.4\nPersistentKeepalive = 65536\n"
        "[Interface]\n[What]\nx = 1\n"
        f"[Peer]\nPublicKey = {key(1)}\n[Peer]\nPublicKey = {key(1)}\nEndpoint =\n"
    )
    assert [int(message.split(":")[1]) for message in told] == [
        1,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        23,
        24,
    ]
    assert all(message.startswith("wg0.conf:") for message in told)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"[Peer]\n", b"[Interface]\n\xff\n", b"[Interface]\n", b"\0"])
def test_what_is_no_file_of_wg_quick_is_refused(data: bytes) -> None:
    assert errors(data)


@given(st.lists(st.sampled_from([
    "[Interface]", "[peer]", "[", "[x]", f"PrivateKey = {SECRET}", f"publickey={key(1)}", f"PublicKey={key(2)}",
    f"PresharedKey = {PSK}", "Address = 10.0.0.2/24", "Address = ,", "AllowedIPs = 0.0.0.0/0,::/0", "= 3", "#", "# hk",
    "Endpoint = a.example:1", "Endpoint = :", "PersistentKeepalive = 25", "Table = off", "MTU = 1400", "\ufeff", "\0",
    "DNS = 1.1.1.1", "PostUp = x # y", "ListenPort = 0", "\u0663", SECRET, f"Endpoint = {SECRET}", f"MTU = {PSK}",
    f"AllowedIPs = {SECRET}", f"[{SECRET}]", f"{SECRET} = x", f"Table = {PSK}", f"SaveConfig = {SECRET}",
]) | st.text(max_size=30), max_size=12), st.sampled_from(["\n", "\r\n"]))  # fmt: skip
def test_any_lines_are_facts_or_errors_and_no_key_is_told(lines: list[str], end: str) -> None:
    text = end.join(lines)
    try:
        found = read(text.encode("utf-8", "surrogatepass"), "wg0.conf")
        told = [repr(found), *imported(found, "wg0.conf").notices, imported(found, "wg0.conf").text()]
    except ConfigError as error:
        told = error.errors
        assert told
        for message in told:
            line = int(re.fullmatch(r"wg0\.conf:(\d+): .+", message)[1])  # type: ignore[index]
            assert 1 <= line <= text.count("\n") + 1
    for secret in (SECRET, PSK):
        assert secret[:20] not in "".join(told)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]]]:
    """A good file in some spelling, and its settings as they were before it was spelled."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    settings = [("", "[Interface]"), ("PrivateKey", SECRET), ("Address", f"10.{rng.randrange(256)}.0.2/24")]
    settings += rng.sample([("ListenPort", "51821"), ("MTU", "1380"), ("Table", "off")], rng.randrange(4))
    for number in range(1, rng.randrange(1, 5)):
        settings += [("", "[Peer]"), ("PublicKey", key(number)), ("AllowedIPs", f"10.200.{number}.0/24, 0.0.0.0/0")]
        settings += rng.sample(
            [("PresharedKey", PSK), ("Endpoint", "a.example:51820"), ("PersistentKeepalive", "25")], rng.randrange(4)
        )
    text = ""
    for name, value in settings:
        spelled = "".join(rng.choice((letter.lower(), letter.upper())) for letter in name)
        blank = rng.choice(("", " ", "\t"))
        said = f"{blank}{spelled}{blank}={blank}{value}{blank}" if name else value
        text += said + rng.choice(("", " # why not", "#")) + rng.choice(("\n", "\r\n", "\n\n", "\n# a b\n"))
    return text, settings


@given(files())
def test_no_spelling_changes_what_a_file_says(file: tuple[str, list[tuple[str, str]]]) -> None:
    text, settings = file
    plain = "".join(f"{name} = {value}\n" if name else f"{value}\n" for name, value in settings)
    assert facts(read(text.encode(), "x")) == facts(read(plain.encode(), "x"))


def facts(found: WgQuick) -> tuple[Any, ...]:
    """Everything but lines."""
    return (
        found.private_key,
        [address for _, address in found.addresses],
        found.listen_port,
        found.mtu,
        found.table,
        found.peers,
    )


# Shapes


def peer(number: int, allowed: str, *more: str) -> str:
    return "\n".join(("[Peer]", f"PublicKey = {key(number)}", f"AllowedIPs = {allowed}", *more, ""))


def test_a_client_of_everything_is_a_host_with_the_default_route_in_its_tunnel() -> None:
    text = (
        HEAD
        + "MTU = 1380\nListenPort = 7\n"
        + peer(1, "0.0.0.0/0", "Endpoint = 203.0.113.1:51820", f"PresharedKey = {PSK}")
    )
    assert tables(text) == {
        "tun0": {"address": "10.7.0.2/24", "default_route": True},
        "vpn": {"mtu": 1380, "node": "peer1"},
        "tunnel": {"private_key_file": "private.key", "listen_port": 7},
        "peer": {
            "peer1": {
                "public_key": key(1),
                "preshared_key_file": "peer1.psk",
                "endpoint": "203.0.113.1:51820",
                "allowed_ips": ["0.0.0.0/0", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"],
            }
        },
    }
    assert made(text).files == {
        "private.key": (f"{SECRET}\n".encode(), 0o600),
        "peer1.psk": (f"{PSK}\n".encode(), 0o600),
    }
    assert made(text).notices == []


def test_the_same_for_a_lan_gives_the_address_to_the_lans_hosts() -> None:
    text = HEAD + peer(1, "0.0.0.0/0", "Endpoint = 203.0.113.1:51820")
    found = tables(text, "192.168.200.2/24")
    assert found["tap0"] == {"address": "192.168.200.2/24"}
    assert found["vpn"] == {"address": "10.7.0.2", "node": "peer1"}
    assert "tun0" not in found


def test_halves_of_everything_are_everything_and_table_off_leaves_the_default_route() -> None:
    halves = peer(1, "0.0.0.0/1, 128.0.0.0/1", "Endpoint = 203.0.113.1:51820")
    assert tables(HEAD + halves)["tun0"]["default_route"] is True
    for table in ("off", "1234"):
        found = made(HEAD + f"Table = {table}\n" + halves)
        assert "default_route" not in tomllib.loads(found.text())["tun0"]
        assert len(found.notices) == (table != "off")


def test_a_client_of_some_networks_gets_their_routes_by_a_hook() -> None:
    text = HEAD + peer(1, "10.7.0.0/24, 10.9.0.0/16", "Endpoint = 203.0.113.1:51820")
    found = made(text)
    assert tomllib.loads(found.text())["hooks"] == {"up": "up.sh"}
    assert tomllib.loads(found.text())["tun0"] == {"address": "10.7.0.2/24"}
    script, mode = found.files["up.sh"]
    assert mode == 0o755
    assert [line for line in script.decode().splitlines() if line.startswith("ip")] == [
        'ip route replace 10.9.0.0/16 dev "$INTERFACE"'
    ]
    assert "up.sh" not in made(HEAD + "Table = off\n" + peer(1, "10.9.0.0/16", "Endpoint = a:1")).files


def test_an_endpoint_that_its_own_route_would_swallow_is_told() -> None:
    def notices(allowed: str, endpoint: str) -> list[str]:
        return made(HEAD + peer(1, allowed, f"Endpoint = {endpoint}")).notices

    (told,) = notices("192.0.0.0/3, 10.0.0.0/8", "203.0.113.1:51820")
    assert told.startswith("wg0.conf:7: the endpoint of peer1 lies in 192.0.0.0/3")
    assert notices("10.0.0.0/8", "203.0.113.1:51820") == notices("192.0.0.0/3", "a.example:1") == []
    assert notices("0.0.0.0/0", "203.0.113.1:51820") == []


def test_a_server_is_an_exit_node() -> None:
    text = HEAD + "ListenPort = 51820\nMTU = 1380\n# alice\n" + peer(1, "10.7.0.3/32") + peer(2, "10.7.0.4/32")
    found = made(text)
    said = tomllib.loads(found.text())
    assert set(said) == {"tun0", "vpn", "tunnel", "peer"}
    assert said["vpn"] == {"mtu": 1380}
    assert list(said["peer"]) == ["alice", "peer1"]
    assert found.files.keys() == {"private.key"}
    assert found.notices == []


def test_of_two_peers_with_one_prefix_the_later_has_it() -> None:
    text = HEAD + peer(1, "10.9.0.0/24, 0.0.0.0/0") + peer(2, "10.9.0.0/24, 10.0.0.0/8") + peer(3, "0.0.0.0/0")
    found = made(text)
    peers = tomllib.loads(found.text())["peer"]
    assert peers["peer1"]["allowed_ips"] == []
    assert peers["peer3"]["allowed_ips"] == ["0.0.0.0/0", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"]
    assert tomllib.loads(found.text())["vpn"]["node"] == "peer3"
    assert len(found.notices) == 2


def test_private_ranges_go_where_wireguard_sends_them() -> None:
    def allowed(*peers: str) -> list[list[str]]:
        text = HEAD + "".join(peer(number, prefixes) for number, prefixes in enumerate(peers, start=1))
        return [found["allowed_ips"] for found in tables(text)["peer"].values()]

    assert allowed("8.0.0.0/5") == [["8.0.0.0/5", "10.0.0.0/8"]]
    assert allowed("10.0.0.0/8", "10.0.0.0/7") == [["10.0.0.0/8"], ["10.0.0.0/7"]]
    assert allowed("8.0.0.0/5", "10.0.0.0/7") == [["8.0.0.0/5"], ["10.0.0.0/7", "10.0.0.0/8"]]
    assert allowed("10.1.0.0/16, 192.0.0.0/2") == [["10.1.0.0/16", "192.0.0.0/2", "192.168.0.0/16"]]


def test_what_has_no_counterpart_is_told_with_its_line() -> None:
    text = HEAD + (
        "Address = fd00::2/64, 10.8.0.2/24\nDNS = 1.1.1.1, lan\nPreUp = a\nPostUp = b\nPreDown = c\nPostDown = d\n"
        "SaveConfig = true\nFwMark = 0x10\n"
    )
    told = made(text + peer(1, "0.0.0.0/0, ::/0", "Endpoint = a:1")).notices
    assert [int(notice.split(":")[1]) for notice in told] == [4, 4, 5, 6, 7, 8, 9, 10, 11, 14]
    assert all(" is not taken over: " in notice for notice in told)
    silent = "DNS =\nSaveConfig = false\nFwMark = off\nTable = auto\n"
    assert made(HEAD + silent + peer(1, "0.0.0.0/0", "Endpoint = a:1")).notices == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"[Interface]\nPrivateKey = {SECRET}\n", 1),
        (f"[Interface]\nPrivateKey = {SECRET}\nAddress = fd00::1/64\n", 3),
        (HEAD + f"[Peer]\nPublicKey = {base64.b64encode(public_key(PRIVATE)).decode()}\n", 5),
        (HEAD + f"[Peer]\nPublicKey = {base64.b64encode(bytes(32)).decode()}\n", 5),
    ],
    ids=["no address", "no IPv4 address", "our own key", "a key of low order"],
)
def test_what_could_never_run_is_refused(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        made(text)
    assert [message.split(":")[1] for message in caught.value.errors] == [str(line)]


def test_names_that_two_peers_claim_are_numbered() -> None:
    text = HEAD + "".join(f"# {name}\n" + peer(number, f"10.9.{number}.0/24") for number, name in enumerate(
        ("hk", "hk", "peer1", "no name"), start=1))  # fmt: skip
    assert list(tables(text)["peer"]) == ["hk", "peer2", "peer1", "peer3"]
