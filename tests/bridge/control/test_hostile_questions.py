"""Questions on the control socket whose values are of another kind than anybody would give."""

from __future__ import annotations

import random

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.control.answers import trace
from bridge.control.answers.every import CHANGES, QUESTIONS
from bridge.control.answers.question import Subject
from bridge.control.protocol import USAGE, QuestionRefused
from bridge.walk.gateway import Gateway
from trials.fuzz.targets.frames import WORLDS, configuration


@pytest.fixture
def gateway() -> Gateway:
    config = configuration(WORLDS[0].configuration)
    return Gateway(gateway_settings(config), routes_from(config), random.Random(0))


@pytest.mark.parametrize("command", ["arp.show", "arp.entry", "arp.del", "arp.flush"])
@pytest.mark.parametrize("port", [["tap0"], {"tap0": 1}, 7, True])
def test_a_port_that_is_no_word_is_refused(gateway: Gateway, command: str, port: object) -> None:
    with pytest.raises(QuestionRefused, match="is no port with an ARP table") as refused:
        {**QUESTIONS, **CHANGES}[command](Subject(gateway), {"port": port, "ip": "192.168.200.9"}, 0)
    assert refused.value.code == USAGE


@pytest.mark.parametrize("link_type", [[101], {}, "101", 1.5])
@pytest.mark.parametrize("port", [None, "tap0", "vpn"])
def test_a_link_type_that_is_no_number_is_refused(gateway: Gateway, link_type: object, port: str | None) -> None:
    with pytest.raises(QuestionRefused, match="the link type must be a number") as refused:
        trace.walk(Subject(gateway), {"port": port, "frame": "45", "link_type": link_type}, 0)
    assert refused.value.code == USAGE
