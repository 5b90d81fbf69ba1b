"""Which outside ports need a walk: what the flow table reads is what the NAT has, at every moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from alias.ports import USED, PortSpace
from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.config.model import Config
from bridge.walk.gateway import Gateway
from flow.table import MARKED, Punt, Table, mark_place
from lab.topology import CONFIGURATION, OFFLOAD_LIST
from tests.compiled import table_kind
from trials.floods.frames import SYN
from wire import ethernet, ipv4
from wire.units import SECOND_NS, address_int

LAN_HOST, OFFLOADED, TAP1 = map(address_int, ("192.168.200.3", "114.114.114.114", "192.168.1.2"))
STATION, ROUTER = bytes([2, 0xAA, 0, 0, 0, 3]), bytes([2, 0xAA, 0, 0, 0, 1])
FORWARD = '[[alias.forward]]\non = "tap1"\nprotocol = "tcp"\noutside_port = 8080\ninside = "192.168.200.3:80"\n'


class World:
    """A gateway in the lab's configuration with `more`, and the frames of both sides."""

    def __init__(self, folder: Path, table: Table) -> None:
        self.folder = folder
        self.walked = Gateway(
            gateway_settings(self.config("")), routes_from(self.config("")), random.Random(1), table=table
        )
        self.now = SECOND_NS

    def config(self, more: str) -> Config:
        (self.folder / "gateway.toml").write_text(CONFIGURATION + more)
        (self.folder / "offload.txt").write_text(OFFLOAD_LIST)
        return load(self.folder / "gateway.toml", "replay")

    def reload(self, more: str) -> None:
        config = self.config(more)
        self.walked.reconfigure(gateway_settings(config), routes_from(config), self.now)

    def opens(self, source_port: int, protocol: int = ipv4.UDP) -> None:
        """The LAN host sends something to the offloaded one."""
        frame = self.walked.interfaces["tap0"].mac + STATION + ethernet.IPV4_TYPE
        frame += packet(LAN_HOST, source_port, OFFLOADED, 53, protocol)
        self.walked.receive("tap0", frame, self.now)

    def asks(self, port: int, protocol: int = ipv4.UDP, destination: int = TAP1) -> Punt:
        """The table's verdict on a stranger's packet for a port of ours."""
        frame = self.walked.interfaces["tap1"].mac + ROUTER + ethernet.IPV4_TYPE
        frame += packet(OFFLOADED + 1, 999, destination, port, protocol)
        found = self.walked.fast.table.forward(self.walked.fast.number("tap1"), frame, None, self.now)
        assert isinstance(found, Punt)
        return found


def packet(source: int, source_port: int, destination: int, port: int, protocol: int) -> bytes:
    ends = source_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    body = ends + (b"\0\x08\0\0" if protocol == ipv4.UDP else bytes(8) + bytes([0x50, SYN]) + bytes(6))
    return ipv4.header(source, destination, protocol, len(body), flags=ipv4.DONT_FRAGMENT) + body


@pytest.fixture(params=["plain", "compiled"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    make: Callable[[int], Table] = table_kind(request.param)
    return World(tmp_path, make(64))


def test_a_port_needs_a_walk_as_long_as_it_has_a_link(world: World) -> None:
    assert world.asks(5000) is Punt.NO_LINK
    world.opens(5000)
    assert world.asks(5000) is Punt.UNKNOWN
    assert world.asks(5001) is Punt.NO_LINK
    assert world.asks(5000, ipv4.TCP) is Punt.NO_LINK, "another protocol"
    world.opens(5000, ipv4.TCP)
    assert world.asks(5000, ipv4.TCP) is Punt.UNKNOWN
    world.walked.flush_links()
    assert world.asks(5000) is Punt.NO_LINK
    world.opens(5000)
    world.now += 400 * SECOND_NS
    world.walked.tick(world.now)
    assert world.asks(5000) is Punt.NO_LINK, "it has expired"


def test_a_static_forward_needs_a_walk_from_the_reload_on(world: World) -> None:
    assert world.asks(8080, ipv4.TCP) is Punt.NO_LINK
    world.reload(FORWARD)
    assert world.asks(8080, ipv4.TCP) is Punt.UNKNOWN
    assert world.asks(8080) is Punt.NO_LINK
    world.reload("")
    assert world.asks(8080, ipv4.TCP) is Punt.NO_LINK


def test_where_a_stranger_is_to_hear_of_it_his_syn_is_walked(world: World) -> None:
    world.reload('[alias]\nunsolicited_syn = "unreachable"\n')
    assert world.asks(5000, ipv4.TCP) is Punt.UNKNOWN
    assert world.asks(5000) is Punt.NO_LINK
    world.reload("")
    assert world.asks(5000, ipv4.TCP) is Punt.NO_LINK


def test_what_is_for_another_address_is_walked(world: World) -> None:
    assert world.asks(5000, destination=TAP1 + 1) is Punt.UNKNOWN
    assert world.asks(5000, destination=LAN_HOST) is Punt.UNKNOWN


def test_the_walk_says_the_same_of_what_needs_none(world: World) -> None:
    frame = world.walked.interfaces["tap1"].mac + ROUTER + ethernet.IPV4_TYPE
    world.walked.receive("tap1", frame + packet(OFFLOADED, 53, TAP1, 5000, ipv4.UDP), world.now)
    assert {reason.value for reason, count in world.walked.counters.drops.items() if count} == {"alias.no_link"}


def test_both_rooms_mean_the_same_byte() -> None:
    space = PortSpace(has_classes=True)
    assert USED == MARKED
    for port in (1, 2, 1023, 1024, 40_001, 65_535):
        space.reserve([port])
        assert [place for place, mark in enumerate(space.marks) if mark] == sorted({mark_place(0), mark_place(port)})
