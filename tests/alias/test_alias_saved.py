"""Links that outlive the process: what is saved of them, and what another table makes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from alias.ports import REST_NS
from alias.saved import saved
from alias.table import Aliases
from alias.types import COARSE_BITS, AliasSettings, Egress, Link, Saved
from tests.alias.nat import BOTH, A, B, C, E, F, Nat, packet
from tests.alias.test_alias_properties import FORWARDS, FRAMES, LIMITS, RESERVED, assert_sound, back
from wire import ipv4
from wire.drop import Drop
from wire.units import SECOND_NS, address_int

STEP_S = (1 << COARSE_BITS) / SECOND_NS
Name = tuple[Egress, int, int, int, int, int]


def restarted(before: Nat, gap_s: float = 0, **more: object) -> Nat:
    """Another table at the same clock, `gap_s` later, that took up what the one before had."""
    after = Nat(before.egress, seed=2, **more)
    after.now = before.now + round(gap_s * SECOND_NS)
    for link in before.links():
        after.aliases.restore(saved(link), after.now)
    return after


def name(link: Link) -> Name:
    """The names of a link inside and outside."""
    return link.egress, link.protocol, link.inside, link.inside_port, link.outside_port, link.remote


def tcp(source: str, sport: int, flags: str, **more: int) -> IP:
    return IP(src=source, dst=E) / TCP(sport=sport, dport=80, flags=flags, **more)


def connect(nat: Nat, inside: str = A, sport: int = 5000) -> int:
    """Three steps of a handshake; the outside port."""
    seen = nat.out(tcp(inside, sport, "S", seq=100))
    port = int(seen.sport)
    nat.back(IP(src=E, dst=nat.x) / TCP(sport=80, dport=port, flags="SA", seq=500, ack=101))
    nat.out(tcp(inside, sport, "A", seq=101, ack=501))
    return port


@pytest.mark.parametrize("egress", BOTH)
def test_an_established_connection_is_entered_from_outside_first(egress: Egress) -> None:
    """T5, U3: two hosts with one source port; each gets its own, without having said a word since."""
    before = Nat(egress)
    ports = {inside: connect(before, inside) for inside in (A, B)}
    assert ports[A] != ports[B]
    before.after(3600)
    after = restarted(before)
    for inside, port in ports.items():
        data = IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="PA", seq=501, ack=101) / b"hello"
        seen = after.back(data)
        assert (seen.dst, seen.dport) == (inside, 5000)
        reply = after.out(tcp(inside, 5000, "A", seq=101, ack=506))
        assert reply.sport == port
    assert {link.state for link in after.links()} == {"EST"}


def test_the_timer_goes_on_where_it_was() -> None:
    """T5: 7440 s since the last packet, the restart is none."""
    before = Nat()
    port = connect(before)
    before.after(7000)
    after = restarted(before, 10)
    data = IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="A", seq=501, ack=101)
    after.after(430 - 1)
    assert isinstance(after.back(data), IP)
    after.after(7439)
    assert isinstance(after.back(data), IP)
    after.after(7441)
    assert after.back(data) is Drop.ALIAS_NO_LINK


def test_a_link_that_expired_meanwhile_is_not_taken_up() -> None:
    """U5: five minutes are over, whoever was there to see it."""
    before = Nat()
    before.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
    assert [name(link) for link in restarted(before, 299).links()] == [name(link) for link in before.links()]
    assert restarted(before, 300 + STEP_S).links() == []


def test_what_was_about_to_open_opens() -> None:
    """R1: the SYN passed before; the answer comes after, or passed while nobody looked."""
    for lost in (True, False):
        before = Nat()
        port = int(before.out(tcp(A, 5000, "S", seq=100)).sport)
        after = restarted(before)
        if not lost:
            answer = IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="SA", seq=500, ack=101)
            assert isinstance(after.back(answer), IP)
        assert after.out(tcp(A, 5000, "A", seq=101, ack=501)).sport == port
        after.back(IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="A", seq=501, ack=101))
        assert [link.state for link in after.links()] == ["EST"]


def test_a_connection_that_was_closing_ends_as_it_would_have() -> None:
    """R2, T5: both FINs were seen: four minutes."""
    before = Nat()
    port = connect(before)
    before.out(tcp(A, 5000, "FA", seq=101, ack=501))
    before.back(IP(src=E, dst=before.x) / TCP(sport=80, dport=port, flags="FA", seq=501, ack=102))
    after = restarted(before, 100)
    assert [link.state for link in after.links()] == ["both-FIN"]
    after.after(139)
    assert len(after.links()) == 1
    after.after(2 + STEP_S)
    assert after.links() == []


def test_a_connection_that_closes_after_the_restart_does_not_stay_for_two_hours() -> None:
    """R2: its session is known, not only its port."""
    before = Nat()
    port = connect(before)
    after = restarted(before)
    after.out(tcp(A, 5000, "FA", seq=101, ack=501))
    after.back(IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="FA", seq=501, ack=102))
    after.after(241)
    assert after.links() == []


def test_a_blind_reset_changes_nothing_before_and_after_the_inside_has_spoken() -> None:
    """R3a: the window is not known until a segment of the inside tells it; then it is judged as ever."""
    before = Nat()
    port = connect(before)
    after = restarted(before)
    blind = IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="R", seq=900_000_000)
    after.back(blind)
    assert [link.state for link in after.links()] == ["EST"]
    after.out(tcp(A, 5000, "A", seq=101, ack=501, window=1000))
    after.back(blind)
    assert [link.state for link in after.links()] == ["EST"]
    after.back(IP(src=E, dst=after.x) / TCP(sport=80, dport=port, flags="R", seq=501))
    assert [link.state for link in after.links()] == ["TRANS"]


def test_a_port_with_several_connections_lives_for_all_of_them() -> None:
    """T5: one of them closes after the restart; nobody knows of the other, and it has as long as before."""
    before = Nat()
    port = connect(before)
    before.out(IP(src=A, dst=F) / TCP(sport=5000, dport=80, flags="S", seq=100))
    before.back(IP(src=F, dst=before.x) / TCP(sport=80, dport=port, flags="SA", seq=500, ack=101))
    after = restarted(before)
    for remote in (E, F):
        after.out(IP(src=A, dst=remote) / TCP(sport=5000, dport=80, flags="FA", seq=101, ack=501))
        after.back(IP(src=remote, dst=after.x) / TCP(sport=80, dport=port, flags="FA", seq=501, ack=102))
    after.after(7439)
    assert [link.state for link in after.links()] == ["EST"]
    after.after(2 + STEP_S)
    assert after.links() == []


def test_queries_and_other_protocols_go_on() -> None:
    """M3, I1: an echo reply and a packet without ports find the host that asked before the restart."""
    before = Nat()
    asked = before.out(IP(src=A, dst=E) / ICMP(id=77, seq=1))
    before.out(IP(src=B, dst=F, proto=47) / b"x")
    after = restarted(before)
    assert after.back(IP(src=E, dst=after.x) / ICMP(type=0, id=asked[ICMP].id, seq=1)).dst == A
    assert after.back(IP(src=F, dst=after.x, proto=47) / b"y").dst == B
    assert after.back(IP(src=E, dst=after.x, proto=47) / b"y") is Drop.ALIAS_NO_LINK


def test_under_address_dependent_filtering_strangers_stay_strangers() -> None:
    """U8: the remote is known, others meet silence."""
    before = Nat(filtering="address-dependent")
    port = int(before.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53)).sport)
    after = restarted(before, filtering="address-dependent")
    assert after.back(IP(src=F, dst=after.x) / UDP(sport=53, dport=port)) is Drop.ALIAS_FILTERED
    assert after.back(IP(src=E, dst=after.x) / UDP(sport=53, dport=port)).dst == A


def test_a_forward_of_today_is_stronger_than_a_link_of_yesterday() -> None:
    """M1: its port is taken; and what its inside endpoint sends leaves by it."""
    before = Nat()
    assert before.out(tcp(B, 8080, "S")).sport == 8080
    assert before.out(tcp(A, 80, "S")).sport == 80
    after = restarted(before, forwards=FORWARDS[:1])
    dynamic = [link for link in after.links() if not link.is_static]
    assert [(link.inside, link.outside_port) for link in dynamic] == [(address_int(A), 80)]
    assert after.out(tcp(A, 80, "SA")).sport == 8080
    assert after.back(IP(src=E, dst=after.x) / TCP(sport=80, dport=80, flags="A")).dst == A


def test_reserved_ports_and_the_bounds_of_today_hold() -> None:
    """C1, C4: what does not fit is left out."""
    before = Nat()
    for port in (5000, 5001, 5002, 5003):
        before.out(IP(src=A, dst=E) / UDP(sport=port, dport=53))
    reserved = [(Egress.TAP1, ipv4.UDP, 5001)]
    after = restarted(before, reserved=reserved, max_links_per_host=2)
    assert [link.outside_port for link in after.links()] == [5000, 5002]
    after = restarted(before, max_links=3)
    assert [link.outside_port for link in after.links()] == [5000, 5001, 5002]


def test_shorter_timers_of_today_hold() -> None:
    before = Nat(udp_timeout_ns=3000 * SECOND_NS)
    before.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
    after = restarted(before)
    after.after(301)
    assert after.links() == []


def test_a_port_that_was_given_back_rests_on() -> None:
    """C3: 120 s since it was given back, for everybody but its former owner."""
    before = Nat()
    before.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
    ended = saved(before.links()[0])
    for waiting_s, resting in ((99, True), (101, False)):
        after = Nat()
        after.aliases.rest(ended, after.now + 100 * SECOND_NS)
        after.after(waiting_s)
        port = int(after.out(IP(src=B, dst=E) / UDP(sport=5000, dport=53)).sport)
        assert (port != 5000) is resting
    after = Nat()
    after.aliases.rest(ended, after.now + REST_NS)
    assert after.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53)).sport == 5000


steps = st.one_of(
    st.tuples(st.just("out"), st.sampled_from(list(Egress)), st.sampled_from(list(FRAMES))),
    st.tuples(st.just("back"), st.sampled_from(list(Egress)), st.sampled_from(list(FRAMES)), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1, 59, 119, 239, 299])),
    st.tuples(st.just("restart"), st.sampled_from([0, 1, 30])),
)


@settings(max_examples=60)
@given(
    st.lists(steps, max_size=50),
    st.integers(0, 1 << 32),
    st.sampled_from(["endpoint-independent", "address-dependent"]),
)
def test_a_restart_at_any_time_loses_no_link(script: list[tuple[object, ...]], seed: int, filtering: str) -> None:
    """U3, C4, T5: the same names, the same expiry; the table is sound and goes on to be."""
    chosen = AliasSettings(max_links=12, max_links_per_host=6, filtering=filtering)  # type: ignore[arg-type] # of two
    aliases = Aliases(chosen, FORWARDS[:1], RESERVED, random.Random(seed))
    now = SECOND_NS * 1000
    for step in script:
        if step[0] == "out":
            aliases.outbound(step[1], FRAMES[step[2]], now)  # type: ignore[arg-type,index] # as the strategies say
        elif step[0] == "back":
            live = list(aliases.links(now))
            port = live[step[3] % len(live)].outside_port if live else 5000  # type: ignore[operator] # likewise
            aliases.inbound(step[1], back(FRAMES[step[2]], port), now)  # type: ignore[arg-type,index] # likewise
        else:
            now += step[1] * SECOND_NS  # type: ignore[operator] # likewise
            aliases.tick(now)
        if step[0] == "restart":
            kept = {name(link): saved(link) for link in aliases.links(now) if not link.is_static}
            before = {name(link): link.expires_ns for link in aliases.links(now)}
            again = Aliases(chosen, FORWARDS[:1], RESERVED, random.Random(seed))
            for one in kept.values():
                assert again.restore(one, now) is not None
            found = {name(link): link for link in again.links(now) if not link.is_static}
            assert found.keys() == kept.keys()
            for key, link in found.items():
                assert link.expires_ns <= kept[key].expires_ns
                assert link.expires_ns >= before[key] or link.state == "TRANS"
            aliases = again
        assert_sound(aliases, now)


numbers = st.integers(0, 65_535)


@given(
    st.lists(
        st.builds(
            Saved,
            st.sampled_from(list(Egress)),
            st.sampled_from([ipv4.TCP, ipv4.UDP, ipv4.ICMP, 47]),
            st.sampled_from([address_int(one) for one in (A, B, C)]),
            st.one_of(st.sampled_from([0, 80, 5000]), numbers),
            st.one_of(st.sampled_from([0, 80, 5000, 8080]), numbers),
            st.integers(0, (1 << 32) - 1),
            numbers,
            st.integers(0, 8),
            st.integers(0, 255),
            st.booleans(),
            st.integers(0, 1 << 62),
        ),
        max_size=30,
    )
)
def test_whatever_is_taken_up_leaves_a_sound_table(found: list[Saved]) -> None:
    """C1, C4, U3, U3a: records that no table of ours would have written."""
    aliases = Aliases(LIMITS, FORWARDS, RESERVED, random.Random(1))
    now = SECOND_NS * 1000
    for one in found:
        aliases.restore(one, now)
    assert_sound(aliases, now)
    for link in aliases.links(now):
        if link.protocol in (ipv4.TCP, ipv4.UDP) and not link.is_static:
            assert (link.inside_port < 1024) == (link.outside_port < 1024)
    for frame in FRAMES.values():
        for egress in Egress:
            aliases.outbound(egress, frame, now)
            aliases.inbound(egress, back(frame, 5000), now)
    assert_sound(aliases, now)


def test_only_changes_are_told_and_only_where_somebody_asked() -> None:
    aliases = Aliases(AliasSettings(), FORWARDS[:1], (), random.Random(1))
    frame = packet(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
    aliases.outbound(Egress.VPN, frame, SECOND_NS)
    assert not aliases.changes
    aliases.changes.want(True)
    aliases.outbound(Egress.VPN, frame, SECOND_NS)
    assert not aliases.changes
    link = aliases.outbound(Egress.TAP1, frame, SECOND_NS)
    assert list(aliases.changes) == [link]
    aliases.changes.take(1)
    aliases.flush({address_int(A)}, SECOND_NS)
    assert len(aliases.changes) == 2
