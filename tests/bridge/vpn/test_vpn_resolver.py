"""Look-ups in threads, answered in the loop. Nothing here asks a name server: the names are numbers."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.into_tunnel import address_of
from bridge.config.into_walk import gateway_settings
from bridge.config.load import read
from bridge.loop.loop import Loop
from bridge.vpn.resolver import HostNames
from bridge.walk.gateway import Gateway

DEADLINE_S = 10.0
FOUR, SIX = bytes((192, 0, 2, 1)), bytes([0x20, 1, 0xD, 0xB8, *bytes(11), 1])


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.chdir(tmp_path)  # no `route` folder lies beside the configuration
    config = read('[tap0]\naddress = "192.168.200.2/24"\n', Path("gateway.toml"), "replay")
    loop = Loop(Gateway(gateway_settings(config), routes_from(config), random.Random(1)))
    yield loop
    loop.close()


@pytest.mark.parametrize(
    ("host", "with_ipv6", "found"),
    [
        ("192.0.2.1", True, [FOUR]),
        ("2001:db8::1", True, [SIX]),
        ("2001:db8::1", False, []),
        ("192.0.2.1", False, [FOUR]),
        ("::ffff:192.0.2.1", True, []),
        ("fe80::1", True, []),
        ("a" * 64 + ".example", True, []),
    ],
)
def test_a_look_up_answers_everybody_who_asked_with_every_address(
    loop: Loop, host: str, with_ipv6: bool, found: list[bytes]
) -> None:
    before = threading.active_count()
    resolver = HostNames(loop, with_ipv6=with_ipv6)
    answers: list[list[bytes]] = []
    resolver.resolve(host, lambda addresses: answers.append(list(addresses)))
    assert threading.active_count() == before, "it waits until rights have been given up"
    resolver.begin()
    resolver.resolve(host, lambda addresses: answers.append(list(addresses)))
    while len(answers) < 2:
        loop.turn(DEADLINE_S)
    assert answers == [found, found]
    resolver.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.1", FOUR), ("2001:db8::1", SIX), ("node.example", None), ("fe80::1", None), ("::ffff:1.2.3.4", None)],
)
def test_what_is_an_address_of_a_peer(host: str, address: bytes | None) -> None:
    assert address_of(host) == address
