"""Things that may lie between both ends of the tunnel: a wire that does damage, a router with a narrow path."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.outside import OUTER_EXIT
from lab.topology import Lab
from trials.cables.carrier import BadWire, join_by_wire
from trials.cables.damage import HOLD_NS, MILLISECOND_NS, Direction, WireDamage
from trials.cables.router import ROUTER_NEAR, Router, join_by_router

IPV4_HEAD = bytes(12) + b"\x08\x00"
ARP_HEAD = bytes(12) + b"\x08\x06"

DATAGRAMS = """
import socket, struct, sys
UDP_SEGMENT = 103
socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = [number.to_bytes(4, "big") * 300 for number in range(1000)]
for at in range(0, len(sent), 50):
    size = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1200))
    socket_.sendmsg(sent[at:at + 50], [size], 0, (sys.argv[1], 7001))
"""
COLLECT = """
import json, select, socket, sys
socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
socket_.bind(("0.0.0.0", 7001))
print("ready", flush=True)
numbers = []
while select.select([socket_], [], [], 1 if numbers else 20)[0]:
    data = socket_.recv(1 << 16)
    assert data == data[:4] * 300
    numbers.append(int.from_bytes(data[:4], "big"))
print(json.dumps(numbers))
"""


def frames(count: int) -> list[bytes]:
    return [IPV4_HEAD + number.to_bytes(50, "big") for number in range(count)]


def through(direction: Direction, given: list[bytes]) -> list[bytes]:
    """The frames that a direction lets go, in their order, of frames that came a microsecond apart."""
    out: list[bytes] = []
    for number, frame in enumerate(given):
        direction.take(frame, number * 1000)
        out += direction.leave(number * 1000)
    return out + list(direction.leave(len(given) * 1000 + HOLD_NS))


def test_a_good_lane_changes_nothing() -> None:
    assert through(Direction("there", 1), frames(1000)) == frames(1000)


def test_loss_and_duplicates_come_in_their_shares_and_are_the_same_for_the_same_seed() -> None:
    faults = WireDamage(loss=0.1, duplicate=0.05)
    directions = [Direction("there", seed, faults) for seed in (1, 1, 2)]
    once, again, other = (through(direction, frames(10_000)) for direction in directions)
    assert once == again != other
    counts = directions[0].counts
    assert 900 < counts["lost"] < 1100
    assert 380 < counts["duplicated"] < 520
    assert len(once) == 10_000 - counts["lost"] + counts["duplicated"]
    assert len(set(once)) == 10_000 - counts["lost"]


def test_what_is_lost_is_the_same_whatever_else_is_done() -> None:
    plain = through(Direction("back", 3, WireDamage(loss=0.2)), frames(2000))
    more = through(Direction("back", 3, WireDamage(loss=0.2, reorder=0.3, duplicate=0.1)), frames(2000))
    assert set(plain) == set(more)


def test_no_frame_is_overtaken_by_more_than_the_displacement() -> None:
    given = frames(5000)
    out = through(Direction("there", 5, WireDamage(reorder=0.2, displacement=6)), given)
    assert sorted(out) == given != out
    place = {frame: at for at, frame in enumerate(out)}
    overtaken = [
        sum(place[later] < place[frame] for later in given[at + 1 : at + 20]) for at, frame in enumerate(given)
    ]
    assert max(overtaken) == 6


def test_a_held_frame_that_nobody_overtakes_goes_on_by_itself() -> None:
    direction = Direction("there", 1, WireDamage(reorder=1.0))
    direction.take(frames(1)[0], 0)
    assert list(direction.leave(0)) == []
    assert direction.due_ns() == HOLD_NS
    assert list(direction.leave(HOLD_NS)) == frames(1)
    assert direction.due_ns() is None


def test_delay_a_longest_packet_and_a_block_do_what_they_say_and_arp_passes_all() -> None:
    direction = Direction("there", 1, WireDamage(delay_ms=5, mtu_bytes=40, blocked=["back"]))
    direction.take(IPV4_HEAD + bytes(40), 0)
    direction.take(IPV4_HEAD + bytes(41), 0)
    assert direction.due_ns() == 5 * MILLISECOND_NS
    assert list(direction.leave(5 * MILLISECOND_NS - 1)) == []
    assert list(direction.leave(5 * MILLISECOND_NS)) == [IPV4_HEAD + bytes(40)]
    assert direction.counts["too_long"] == 1
    direction.damage = WireDamage(blocked=["there"], loss=1.0)
    assert through(direction, [IPV4_HEAD + bytes(20), ARP_HEAD + bytes(28)]) == [ARP_HEAD + bytes(28)]
    assert direction.counts["blocked"] == 1


@pytest.fixture(scope="module")
def wire(bare_lab: Lab) -> Iterator[BadWire]:
    wire = join_by_wire(bare_lab, seed=11)
    yield wire
    bare_lab.part_outside()


@pytest.fixture
def router(bare_lab: Lab) -> Iterator[Router]:
    yield join_by_router(bare_lab, mtu_bytes=1280)
    bare_lab.part_outside()


def collected(lab: Lab) -> list[int]:
    """The numbers of datagrams that arrive in the exit of 1,000 that the gateway's machine sends in large pieces."""
    assert lab.client("gw", "ping", OUTER_EXIT)["ok"]  # a kernel keeps few packets for a neighbour it does not know
    receiver = lab.namespaces["exit"].start_python("-c", COLLECT)
    try:
        assert receiver.line() == "ready"
        lab.namespaces["gw"].python("-c", DATAGRAMS, OUTER_EXIT)
        numbers: list[int] = json.loads(receiver.finish())
    finally:
        receiver.stop()
    return numbers


@pytest.mark.lab
def test_datagrams_sent_in_pieces_arrive_one_by_one_with_good_checksums(bare_lab: Lab, wire: BadWire) -> None:
    wire.set()
    before = wire.counts()["there"]
    assert collected(bare_lab) == list(range(1000))
    counts = wire.counts()["there"]
    assert counts["delivered"] - before.get("delivered", 0) >= 1000
    assert not counts.get("refused")


@pytest.mark.lab
def test_what_is_missing_behind_the_wire_is_what_it_lost(bare_lab: Lab, wire: BadWire) -> None:
    before = wire.set(loss=0.1, duplicate=0.05, reorder=0.1)["there"]
    numbers = collected(bare_lab)
    after = wire.set()["there"]
    lost, doubled = (after[key] - before.get(key, 0) for key in ("lost", "duplicated"))
    assert 50 < lost < 150
    assert len(numbers) == 1000 - lost + doubled
    assert len(set(numbers)) == 1000 - lost
    assert numbers != sorted(numbers)


@pytest.mark.lab
def test_a_blocked_port_is_blocked_alone(bare_lab: Lab, wire: BadWire) -> None:
    wire.set(blocked_ports=[7001])
    # First, so that the neighbour is known: the kernel keeps few datagrams for one that it has to ask for.
    assert bare_lab.client("gw", "ping", OUTER_EXIT)["ok"]
    before = wire.counts()["there"].get("blocked", 0)
    bare_lab.namespaces["gw"].python("-c", DATAGRAMS, OUTER_EXIT)
    assert bare_lab.client("gw", "ping", OUTER_EXIT)["ok"]  # and so all before it have been looked at
    assert wire.set()["there"]["blocked"] == before + 1000


@pytest.mark.lab
def test_a_narrow_router_tells_its_mtu_both_ways_and_cuts_what_may_be_cut(bare_lab: Lab, router: Router) -> None:
    for name, far, near in (("gw", OUTER_EXIT, ROUTER_NEAR), ("exit", "198.51.100.1", "198.51.100.3")):
        assert bare_lab.client(name, "ping", far, "64", "1252")["ok"]
        refused = bare_lab.client(name, "ping", far, "64", "1253")
        assert (refused["type"], refused["code"], refused["from"]) == (3, 4, near)
    numbers = collected(bare_lab)
    assert numbers == list(range(1000))
    router.set_mtu(1400)
    assert bare_lab.client("gw", "ping", OUTER_EXIT, "64", "1372")["ok"]


@pytest.mark.lab
def test_a_router_that_swallows_icmp_says_nothing(bare_lab: Lab, router: Router) -> None:
    router.swallow_icmp()
    assert bare_lab.client("gw", "ping", OUTER_EXIT, "64", "1252")["ok"]
    assert bare_lab.client("gw", "ping", OUTER_EXIT, "64", "1253")["from"] is None
    router.answer_with_icmp()
    assert bare_lab.client("gw", "ping", OUTER_EXIT, "64", "1253")["code"] == 4
