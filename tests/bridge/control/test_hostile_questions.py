"""Questions on the control socket whose values are of another kind than anybody would give."""

from __future__ import annotations

import random

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.control import explain
from bridge.walk.gateway import Gateway
from trials.fuzz.targets.frames import WORLDS, configuration


@pytest.fixture
def gateway() -> Gateway:
    config = configuration(WORLDS[0].configuration)
    return Gateway(gateway_settings(config), routes_from(config), random.Random(0))


@pytest.mark.parametrize("command", ["arp.show", "arp.entry", "arp.del", "arp.flush"])
@pytest.mark.parametrize("port", [["tap0"], {"tap0": 1}, 7, True])
def test_a_port_that_is_no_word_is_refused(gateway: Gateway, command: str, port: object) -> None:
    with pytest.raises(explain.Refused, match="is no port with an ARP table") as refused:
        explain.COMMANDS[command](gateway, {"port": port, "ip": "192.168.200.9"}, 0)
    assert refused.value.code == explain.USAGE


@pytest.mark.parametrize("link_type", [[101], {}, "101", 1.5])
@pytest.mark.parametrize("port", [None, "tap0", "vpn"])
def test_a_link_type_that_is_no_number_is_refused(gateway: Gateway, link_type: object, port: str | None) -> None:
    with pytest.raises(explain.Refused, match="the link type must be a number") as refused:
        explain.trace(gateway, {"port": port, "frame": "45", "link_type": link_type}, 0)
    assert refused.value.code == explain.USAGE
