"""Properties that hold after any traffic: the indexes agree, ports have one owner, bounds hold, timers fire in time."""

from __future__ import annotations

import random
import re
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from alias.expiry import Expiry
from alias.sessions import PER_LINK
from alias.table import Aliases
from alias.types import NEVER_NS, AliasSettings, Egress, Forward, Link
from tests.alias.nat import A, B, C, E, F, packet
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS, address_int

INSIDES, REMOTES, PORTS = (A, B, C), (E, F), (80, 500, 5000, 5001, 5002)
LIMITS = AliasSettings(max_links=12, max_links_per_host=6, unsolicited_syn="unreachable")


def _frames() -> dict[tuple[int, str, str, int, int, str], Packet]:
    """One packet of each kind, made once: scapy is slow."""
    made = {}
    for inside in INSIDES:
        for remote in REMOTES:
            for near in PORTS:
                for flags in ("S", "SA", "A", "FA", "R"):
                    frame = IP(src=inside, dst=remote) / TCP(sport=near, dport=80, flags=flags, seq=5, ack=9)
                    made[ipv4.TCP, inside, remote, near, 80, flags] = packet(frame)
                made[ipv4.UDP, inside, remote, near, 80, ""] = packet(
                    IP(src=inside, dst=remote) / UDP(sport=near, dport=80)
                )
                made[ipv4.ICMP, inside, remote, near, 80, ""] = packet(IP(src=inside, dst=remote) / ICMP(id=near))
                for protocol in (47, 50):
                    made[protocol, inside, remote, near, 80, ""] = packet(
                        IP(src=inside, dst=remote, proto=protocol) / b"x"
                    )
    return made


FRAMES = _frames()
FORWARDS = (
    Forward(Egress.TAP1, ipv4.TCP, 8080, address_int(A), 80),
    Forward(Egress.TAP1, ipv4.TCP, 5000, address_int(B), 80),
    Forward(Egress.TAP1, ipv4.UDP, 5001, address_int(A), 5000),
    Forward(Egress.VPN, ipv4.TCP, 500, address_int(A), 80),
)
RESERVED = ((Egress.TAP1, ipv4.UDP, 5002), (Egress.VPN, ipv4.TCP, 80))


def back(leaving: Packet, outside_port: int) -> Packet:
    """The answer to a packet from inside, addressed to an outside port."""
    coming = leaving.copy()
    coming.source, coming.destination = leaving.destination, 1
    coming.source_port, coming.destination_port = leaving.destination_port, outside_port
    return coming


def assert_sound(aliases: Aliases, now: int) -> None:
    """The table against itself."""
    live = list(aliases.links(now))
    owners = Counter((link.egress, link.protocol, link.outside_port, link.remote) for link in live)
    assert max(owners.values(), default=1) == 1, "a port, or a remote, with two owners"
    dynamic = [link for link in live if not link.is_static]
    counted = Counter(link.inside for link in dynamic)
    assert len(dynamic) <= aliases.settings.max_links
    assert max(counted.values(), default=0) <= aliases.settings.max_links_per_host
    assert {host: record.links for host, record in aliases.store._limits.hosts.items()} == counted
    assert aliases.store._limits.count == len(dynamic)
    for egress, spaces in aliases.store._spaces.items():
        for protocol, space in spaces.items():
            assert all(space.by_port[link.outside_port] is link for link in space.by_inside.values())
            for port, link in space.by_port.items():
                assert (link.egress, link.protocol, link.outside_port) == (egress, protocol, port)
                owner = space.by_inside[link.inside << 16 | link.inside_port]
                assert owner is link or owner.is_static, "only a forward may take an endpoint from its link"
            marks = [(match.start(), match[0][0]) for match in re.finditer(b"[^\0]", space._map)]
            assert {(place << 1 | place >> 15) & 0xFFFF for place, mark in marks if mark & 1} == space.by_port.keys()
            resting = sum(mark >> 2 & 1 for _, mark in marks)
            assert resting <= len(space._returning) <= len(space._resting)
    for link in dynamic:
        assert now < link.expires_ns <= now + 7440 * SECOND_NS
        if isinstance(link.sessions, dict):
            assert 1 <= len(link.sessions) <= PER_LINK + 1


steps = st.one_of(
    st.tuples(st.just("out"), st.sampled_from(list(Egress)), st.sampled_from(list(FRAMES))),
    st.tuples(st.just("back"), st.sampled_from(list(Egress)), st.sampled_from(list(FRAMES)), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1, 59, 60, 119, 121, 239, 241, 299, 301, 7441])),
    st.tuples(st.just("flush"), st.sampled_from([None, A, B])),
    st.tuples(
        st.just("reload"),
        st.sets(st.sampled_from(FORWARDS)),
        st.sets(st.sampled_from(RESERVED)),
        st.sampled_from(["endpoint-independent", "address-dependent"]),
    ),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=60), st.integers(0, 1 << 32))
def test_after_any_traffic_the_table_is_sound(script: list[tuple[object, ...]], seed: int) -> None:
    """U3, C1, C4, P11: two indexes that agree, one owner for each port, bounds, timers."""
    aliases = Aliases(LIMITS, FORWARDS[:1], (), random.Random(seed))
    now = SECOND_NS * 1000
    for step in script:
        kind = step[0]
        if kind == "out":
            frame = FRAMES[step[2]]  # type: ignore[index] # the strategies say what stands where
            before = {id(link): link.outside_port for link in aliases.links(now)}
            link = aliases.outbound(step[1], frame, now)  # type: ignore[arg-type] # likewise
            if isinstance(link, Link):
                assert link.protocol in (ipv4.ICMP, 47, 50) or link.outside_port
                assert before.get(id(link), link.outside_port) == link.outside_port
            else:
                assert isinstance(link, Drop)
                assert before.keys() <= {id(link) for link in aliases.links(now)}, "a refusal costs nobody"
        elif kind == "back":
            live = list(aliases.links(now))
            port = live[step[3] % len(live)].outside_port if live else 5000  # type: ignore[operator] # likewise
            coming = back(FRAMES[step[2]], port)  # type: ignore[index] # likewise
            if isinstance(aliases.inbound(step[1], coming, now), Drop):  # type: ignore[arg-type] # likewise
                aliases.unsolicited(step[1], coming, now)  # type: ignore[arg-type] # likewise
        elif kind == "wait":
            end = now + step[1] * SECOND_NS  # type: ignore[operator] # likewise
            while (due := aliases.next_deadline()) is not None and due <= end:
                now = due
                aliases.tick(now)
                later = aliases.next_deadline()
                assert later is None or later > now, "a tick at the deadline makes progress"
            now = end
        elif kind == "flush":
            inside = step[1]
            aliases.flush({address_int(inside)} if isinstance(inside, str) else None, now)
        else:
            chosen = AliasSettings(max_links=12, max_links_per_host=6, filtering=step[3])  # type: ignore[arg-type] # likewise
            forwards = [forward for forward in FORWARDS if forward in step[1]]  # type: ignore[operator] # likewise
            aliases.reconfigure(chosen, forwards, step[2], now)  # type: ignore[arg-type] # likewise
            assert sum(link.is_static for link in aliases.links(now)) == len(forwards)
    assert_sound(aliases, now)
    aliases.flush(None, now)
    assert_sound(aliases, now)
    assert aliases.store._sessions.count == aliases.store._remotes.count == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 3 * SECOND_NS),
            st.sampled_from([SECOND_NS // 3, 2 * SECOND_NS, 9 * SECOND_NS]),
        ),
        max_size=80,
    )
)
@example([(0, 0, 333_333_333), (0, 1, 333_333_333), (0, 333_333_332, 2 * SECOND_NS), (0, 0, 333_333_333)])
def test_the_calendar_ends_every_link_at_its_time(events: list[tuple[int, int, int]]) -> None:
    """U5, T5: compared with looking at every link at every instant; expiries move both ways."""
    expiry, now = Expiry(), SECOND_NS * 50
    links: dict[int, Link] = {}

    def run_until(end: int) -> None:
        nonlocal now
        while (due := expiry.next_deadline()) is not None and due <= end:
            assert due >= now
            now = due
            for link in expiry.due(now):
                assert link.expires_ns == now, "neither early nor late"
                del links[link.inside]
                link.expires_ns = 0
            assert all(link.expires_ns > now for link in links.values())
        now = end

    for number, wait, life in events:
        run_until(now + wait)
        link = links.get(number)
        if link is None:
            link = links[number] = Link(Egress.TAP1, ipv4.UDP, number, 1, 1, 0, now)
            link.expires_ns = now + life
            expiry.arm(link)
        else:
            is_closer = now + life < link.expires_ns
            link.expires_ns = now + life
            if is_closer:
                expiry.arm(link)
    run_until(now + 20 * SECOND_NS)
    assert links == {}
    assert expiry.next_deadline() is None


def test_links_that_ended_early_do_not_stay_in_the_calendar() -> None:
    """T5: a connection that was established waits in a second two hours away; when it is closed, so does its entry."""
    expiry, now = Expiry(), SECOND_NS * 50
    far_ns, near_ns = 7440 * SECOND_NS, 240 * SECOND_NS
    for number in range(20_000):
        link = Link(Egress.TAP1, ipv4.TCP, number, 1, 1, 0, now)
        for life_ns in (far_ns, near_ns):
            link.expires_ns = now + life_ns
            expiry.arm(link)
        now += near_ns // 100
        for ended in expiry.due(now):
            ended.expires_ns = 0
    assert len(expiry) < 2_000, "of the 101 links that live"


def test_a_link_that_swings_between_two_timers_costs_no_entry_a_second() -> None:
    """R3: reset, data, reset, data: its expiry moves closer each time."""
    expiry, now = Expiry(), SECOND_NS * 50
    links = [Link(Egress.TAP1, ipv4.TCP, number, 1, 1, 0, now) for number in range(100)]
    for _ in range(200):
        for link in links:
            link.expires_ns = now + 7440 * SECOND_NS
            link.expires_ns = now + 240 * SECOND_NS
            expiry.arm(link)
        now += SECOND_NS
    assert len(expiry) < 2_000


def _tcp(body: bytes) -> bytes:
    return ipv4.header(address_int(A), address_int(E), ipv4.TCP, len(body)) + body


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=64), st.booleans(), st.booleans()), max_size=8))
def test_no_segment_raises(segments: list[tuple[bytes, bool, bool]]) -> None:
    """P10: random bytes that pass `read_transport`, out and back, whole and as first fragments."""
    aliases = Aliases(AliasSettings(unsolicited_syn="unreachable"), (), (), random.Random(1))
    now = SECOND_NS
    for body, is_first_fragment, is_outbound in segments:
        now += SECOND_NS
        frame = ipv4.parse(_tcp(b"\x13\x88\0\x50" + body[4:12] + b"\x50" + body[13:]))
        for candidate in (frame, ipv4.parse(_tcp(b"\x13\x88\0\x50" + body[4:]))):
            assert isinstance(candidate, Packet)
            candidate.more_fragments = is_first_fragment
            if ipv4.read_transport(candidate) is not None:
                continue
            if is_outbound:
                aliases.outbound(Egress.TAP1, candidate, now)
            else:
                aliases.inbound(Egress.TAP1, back(candidate, 5000), now)
                aliases.unsolicited(Egress.TAP1, back(candidate, 5000), now)
    assert_sound(aliases, now)


def test_static_links_never_expire() -> None:
    """M1."""
    aliases = Aliases(LIMITS, FORWARDS, (), random.Random(1))
    assert aliases.tick(NEVER_NS - 1) == []
    assert len(list(aliases.links(NEVER_NS - 1))) == len(FORWARDS)
