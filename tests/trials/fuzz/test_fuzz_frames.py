"""The target for frames, and the rules that all gateways are held to: they can fail, each of them."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from itertools import islice

import pytest

from bridge.walk.effects import Effect, Send
from bridge.walk.gateway import Gateway
from trials.fuzz import rules
from trials.fuzz.hostile import Broken, Failure, run
from trials.fuzz.rules import Rules
from trials.fuzz.targets import frames as fuzz_frames
from trials.fuzz.targets.frames import LAN, MACS, WORLDS, Feed, gateway_of
from wire import ipv4
from wire.checksum import checksum
from wire.gso import GsoHeader
from wire.units import SECOND_NS, address_int

HOST, REMOTE, OURS, INSIDE = (
    address_int(text) for text in ("203.0.113.9", "203.0.113.6", "192.168.1.2", "192.168.200.10")
)


def packet(source: int, body: bytes = b"\0\1\0\2\0\x08\0\0", protocol: int = ipv4.UDP, **header: int) -> bytes:
    return ipv4.header(source, REMOTE, protocol, len(body), **header) + body


def judge(
    port: str, raw: bytes, *, came_by: str | None = None, came: bytes = b"", gso: GsoHeader | None = None
) -> None:
    gateway = gateway_of(WORLDS[0].configuration, 0)
    mac = gateway.interfaces[port].mac
    frame = b"\x02\xaa\0\0\0\1" + mac + b"\x08\0" + raw if mac else raw
    Rules(gateway, [LAN]).sends(came_by, came, None, [Send(port, frame, gso)])


def test_a_few_thousand_hostile_inputs_break_nothing() -> None:
    assert run(fuzz_frames.target(), 300, seed=1, most=4000) == 4000


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (list(islice(Feed(WORLDS[0], random.Random(7), []), 200)) for _ in range(2))
    assert first == second


def test_frames_come_in_by_every_port_with_claims_and_without() -> None:
    for world in WORLDS:
        seen = list(islice(Feed(world, random.Random(7), []), 500))
        assert {port for port, _, _ in seen} == set(world.ports)
        claims = {None if one is None else bool(one.gso_type) for _, _, one in seen}
        assert claims == {None, False, True}


def test_a_right_frame_breaks_no_rule() -> None:
    judge("tap1", packet(OURS))
    judge("vpn", packet(HOST, bytes(1380)))


def quoting(source: int) -> bytes:
    body = struct.pack("!BBHI", 3, 1, 0, 0) + packet(source)
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


@pytest.mark.parametrize(
    ("port", "raw", "words"),
    [
        ("vpn", packet(INSIDE), "LAN address is seen on vpn: source"),
        ("tap1", packet(INSIDE), "LAN address is seen on tap1: source"),
        ("tap1", packet(OURS, quoting(INSIDE), ipv4.ICMP), "LAN address is seen on tap1: quoted source"),
        ("tap1", packet(OURS)[:10] + b"\1\2" + packet(OURS)[12:], "a wrong header checksum"),
        ("tap1", packet(OURS) + b"\0", "padding"),
        ("tap1", packet(OURS)[:-1], "no IPv4 packet"),
        ("tap1", packet(OURS, ttl=0), "TTL zero"),
        ("vpn", packet(HOST, bytes(1481)), "over an MTU"),
    ],
)
def test_a_frame_that_must_not_leave_is_found(port: str, raw: bytes, words: str) -> None:
    with pytest.raises(Failure, match=words):
        judge(port, raw)


def test_a_reflection_is_found() -> None:
    with pytest.raises(Failure, match="reflected on vpn"):
        judge("vpn", packet(HOST), came_by="vpn", came=packet(HOST))


def test_a_transport_checksum_that_was_right_and_is_not_any_more_is_found() -> None:
    rng = random.Random(3)
    packets = (fuzz_frames.packet(rng) for _ in range(1000))
    raw = next(one for one in packets if one[9] == ipv4.TCP and one[6] & 0x3F == 0 and one[7] == 0)
    came = raw[:12] + HOST.to_bytes(4, "big") + raw[16:]
    read = rules.headers(raw)
    assert read is not None
    assert rules.transport_is_right(read)
    broken = bytearray(raw)
    broken[36] ^= 1
    gateway = gateway_of(WORLDS[0].configuration, 0)
    with pytest.raises(Failure, match="transport checksum"):
        Rules(gateway, []).sends("tun0", raw, None, [Send("vpn", bytes(broken), None)])
    Rules(gateway, []).sends("tun0", came, None, [Send("vpn", bytes(broken), None)])  # wrong before: it stays so


def test_a_partial_checksum_that_is_none_is_found() -> None:
    tcp = packet(HOST, bytes(20), ipv4.TCP)
    gateway = gateway_of(WORLDS[0].configuration, 0)
    sums = rules.word_sum(tcp[12:20] + b"\0\6\0\x14").to_bytes(2, "big")
    came = tcp[:36] + sums + tcp[38:]
    claims = GsoHeader(True, 0, 0, 0, 20, 16)
    Rules(gateway, []).sends("tun0", came, claims, [Send("vpn", came, claims)])
    with pytest.raises(Failure, match="a wrong partial checksum"):
        Rules(gateway, []).sends("tun0", came, claims, [Send("vpn", tcp, claims)])


def test_an_arp_frame_for_somebody_elses_address_is_found() -> None:
    gateway = gateway_of(WORLDS[0].configuration, 0)
    mac = gateway.interfaces["tap0"].mac
    arp = bytes.fromhex("0001080006040002") + mac + REMOTE.to_bytes(4, "big") + bytes(10)
    with pytest.raises(Failure, match="speaks for"):
        Rules(gateway, []).send(None, Send("tap0", MACS["tap0"][6:] + mac + b"\x08\x06" + arp, None))


def test_a_timer_that_does_not_move_on_and_a_clock_that_goes_back_are_found() -> None:
    class Stuck(Gateway):
        def tick(self, now: int) -> list[Effect]:
            return []

    made = gateway_of(WORLDS[0].configuration, 0)
    gateway = Stuck(made.settings, made.routes, random.Random(0))
    gateway.start(0)
    with pytest.raises(Failure, match="does not move on"):
        Rules(gateway, []).tick_until(60 * SECOND_NS)
    watched = Rules(gateway_of(WORLDS[0].configuration, 0), [])
    watched.clock(2)
    with pytest.raises(Failure, match="went back"):
        watched.clock(1)


def test_more_links_than_a_host_may_have_are_counted() -> None:
    gateway = gateway_of(WORLDS[0].configuration, 0)
    for number in range(20):
        gateway.receive("tap0", MACS["tap0"] + b"\x08\0" + packet(INSIDE, struct.pack("!HHHH", number + 1, 9, 8, 0)), 0)
    watched = Rules(gateway, [])
    watched.stores(0)
    gateway.settings = replace(gateway.settings, alias=replace(gateway.settings.alias, max_links_per_host=19))
    with pytest.raises(Failure, match="20 links of one host, 19 allowed"):
        watched.stores(0)


def test_what_broke_is_told_with_the_input_that_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(self: Gateway, port: str, frame: bytes, now: int, gso: GsoHeader | None = None) -> list[Effect]:
        raise IndexError("a bug")

    monkeypatch.setattr(Gateway, "receive", receive)
    with pytest.raises(Broken, match=r"turn \d+: world \w+, input 1, port \S+: [0-9a-f]+") as caught:
        run(fuzz_frames.target(), 300, seed=1, most=10)
    assert isinstance(caught.value.__cause__, IndexError)
