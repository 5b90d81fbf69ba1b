"""Row C6: closed TCP links give way to new ones, and live ones never do. RFC 7857 2.2, RFC 6888 REQ-8 and 11."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from alias.closed import QUIET_NS, Closed
from alias.saved import saved
from alias.sessions import PER_LINK
from alias.types import Egress, Link
from tests.alias.nat import START, A, B, C, E, F, Nat, packet, passed
from tests.alias.test_alias_tcp import Call
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_int, seconds_ns

INSIDE, OTHER, REMOTE = address_int(A), address_int(B), address_int(E)

Line = tuple[str, str, int, int]
"""Who sends, with which flags, sequence and acknowledgment numbers."""
WHOLE: list[Line] = [
    ("out", "S", 100, 0),
    ("back", "SA", 900, 101),
    ("out", "A", 101, 901),
    ("out", "FA", 101, 901),
    ("back", "FA", 901, 102),
    ("out", "A", 102, 902),
]
"""A connection from its SYN to the acknowledgment of the second FIN."""
BROKEN: list[Line] = [*WHOLE[:3], ("out", "RA", 101, 901)]
"""A connection that the inside resets."""


class Crowd:
    """Connections without scapy on the way, for tens of thousands of them: one segment of each kind is made once, and
    its endpoints and numbers are written into a copy."""

    def __init__(self, nat: Nat) -> None:
        self.nat = nat
        self._made: dict[str, Packet] = {}

    def segment(self, flags: str, source: int, source_port: int, destination: int, port: int, numbers: Any) -> Packet:
        if flags not in self._made:
            self._made[flags] = packet(IP(src=A, dst=E) / TCP(sport=1, dport=1, flags=flags, window=1024))
        made = self._made[flags].copy()
        made.source, made.source_port, made.destination, made.destination_port = source, source_port, destination, port
        for offset, number in zip((24, 28), numbers, strict=True):
            made.data[offset : offset + 4] = number.to_bytes(4, "big")
        return made

    def play(self, lines: list[Line], port: int, inside: int = INSIDE, remote: int = REMOTE) -> Link | Drop:
        """One connection; its link, or why its first segment was refused."""
        nat = self.nat
        link: Link | Drop = Drop.ALIAS_NO_LINK
        for side, flags, *numbers in lines:
            if side == "out":
                link = nat.aliases.outbound(nat.egress, self.segment(flags, inside, port, remote, 80, numbers), nat.now)
            else:
                assert not isinstance(link, Drop)
                coming = self.segment(flags, remote, 80, address_int(nat.x), link.outside_port, numbers)
                assert nat.aliases.inbound(nat.egress, coming, nat.now) is link
            if isinstance(link, Drop):
                return link
        return link


def linked(answer: Link | Drop) -> Link:
    assert isinstance(answer, Link), answer
    return answer


def test_c6_a_host_opens_and_closes_30000_connections_in_a_minute_and_none_is_refused() -> None:
    """C6: an idle established connection of the same host outlives them."""
    nat = Nat()
    crowd = Crowd(nat)
    idle = linked(crowd.play(WHOLE[:3], 1024))
    for number in range(30_000):
        if number % 500 == 0:
            nat.at(number / 500)
        linked(crowd.play(WHOLE, 2000 + number))
    assert idle.is_live(nat.now)
    assert idle.state == "EST"
    assert len(nat.aliases) == nat.settings.max_links_per_host


def test_c6_a_host_with_as_many_live_links_as_it_may_have_is_refused() -> None:
    """C6, C4: none of them ends."""
    nat = Nat()
    crowd = Crowd(nat)
    for number in range(8192):
        linked(crowd.play(WHOLE[:3], 2000 + number))
    assert crowd.play(WHOLE[:1], 1500) is Drop.ALIAS_HOST_LIMIT
    assert len(nat.links()) == 8192
    frame = IP(src=B, dst=E) / TCP(sport=5000, dport=80, flags="S")
    assert passed(nat.out(frame))[TCP].sport != 5000, "others are not affected"


def test_c6_the_link_that_was_closed_first_ends_first() -> None:
    nat = Nat(max_links_per_host=4, max_links=8)
    crowd = Crowd(nat)
    first, live, second, third = (
        linked(crowd.play(lines, 5000 + number)) for number, lines in enumerate([WHOLE, WHOLE[:3], WHOLE, WHOLE])
    )
    for number, ended in enumerate([first, second, third]):
        nat.after(1)
        linked(crowd.play(WHOLE[:1], 6000 + number))
        assert not ended.is_live(nat.now)
        assert nat.aliases.take_events()[-2].link is ended
    assert live.is_live(nat.now)
    assert crowd.play(WHOLE[:1], 6003) is Drop.ALIAS_HOST_LIMIT


@pytest.mark.parametrize("lines", [WHOLE[:1], WHOLE[:2], WHOLE[:3], WHOLE[:4], WHOLE[:5]], ids=len)
def test_c6_a_connection_is_open_until_both_fins_are_acknowledged(lines: list[Line]) -> None:
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    link = linked(crowd.play(lines, 5000))
    assert crowd.play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT
    assert link.is_live(nat.now)


@pytest.mark.parametrize(
    ("closing", "is_closed"),
    [
        ([("back", "FA", 901, 101), ("out", "FA", 101, 902), ("back", "A", 902, 102)], True),  # E closes first
        ([("out", "FA", 101, 901), ("back", "FA", 901, 101), ("out", "A", 102, 902), ("back", "A", 902, 102)], True),
        ([("out", "FA", 101, 901), ("back", "FA", 901, 101), ("back", "A", 902, 102), ("out", "A", 102, 902)], True),
        ([("out", "FA", 101, 901), ("back", "FA", 901, 101), ("out", "A", 102, 902)], False),  # one of two is missing
        ([("out", "FA", 101, 901), ("back", "FA", 901, 102), ("out", "A", 102, 901)], False),  # an older number
        ([("out", "FA", 101, 901), ("back", "FA", 951, 102), ("out", "A", 102, 952)], True),  # data, and FIN behind it
        ([("out", "FA", 101, 901), ("back", "A", 901, 102), ("back", "FA", 901, 102), ("out", "A", 102, 902)], True),
        ([*WHOLE[3:], ("out", "S", 7000, 0)], False),  # opened again
    ],
)  # fmt: skip
def test_c6_however_a_connection_is_closed(closing: list[Line], is_closed: bool) -> None:
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    linked(crowd.play([*WHOLE[:3], *closing], 5000))
    answer = crowd.play(WHOLE[:1], 6000)
    assert isinstance(answer, Link) is is_closed


def test_c6_a_reset_connection_gives_way_once_it_is_quiet() -> None:
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    linked(crowd.play(BROKEN, 5000))
    nat.after(QUIET_NS / 1e9 - 0.001)
    assert crowd.play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT
    nat.after(0.001)
    linked(crowd.play(WHOLE[:1], 6000))


def test_c6_a_reset_that_is_answered_costs_nobody_a_connection() -> None:
    """R3: a later packet brings the connection back."""
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    linked(crowd.play([*BROKEN, ("out", "A", 101, 901)], 5000))
    nat.after(10)
    assert crowd.play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT


def test_c6_a_link_is_open_as_long_as_one_of_its_connections_is() -> None:
    """T1: one endpoint, several remotes."""
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    linked(crowd.play(WHOLE[:3], 5000, remote=address_int(F)))
    linked(crowd.play(WHOLE, 5000))
    assert crowd.play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT
    linked(crowd.play(WHOLE[3:], 5000, remote=address_int(F)))
    linked(crowd.play(WHOLE[:1], 6000))


def test_c6_remotes_that_are_not_followed_keep_their_link() -> None:
    nat = Nat(max_links_per_host=1)
    crowd = Crowd(nat)
    for number in range(PER_LINK + 1):
        linked(crowd.play(WHOLE[:3], 5000, remote=REMOTE + number))
    for number in range(PER_LINK + 1):
        linked(crowd.play(WHOLE[3:], 5000, remote=REMOTE + number))
    assert crowd.play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT


def test_c6_where_all_links_are_used_up_the_longest_closed_of_all_hosts_ends() -> None:
    nat = Nat(max_links=3, max_links_per_host=3)
    crowd = Crowd(nat)
    closed = linked(crowd.play(WHOLE, 5000))
    live = linked(crowd.play(WHOLE[:3], 5001))
    linked(crowd.play(WHOLE, 5002, inside=OTHER))
    linked(crowd.play(WHOLE[:1], 6000, inside=OTHER))
    assert not closed.is_live(nat.now)
    assert live.is_live(nat.now)


def test_c6_udp_finds_room_where_a_closed_connection_stood() -> None:
    nat = Nat(max_links_per_host=1)
    linked(Crowd(nat).play(WHOLE, 5000))
    passed(nat.out(IP(src=A, dst=E, proto=47) / b"gre"))
    assert [link.protocol for link in nat.links()] == [47]


def full(nat: Nat, crowd: Crowd) -> None:
    """C has all ports from 1024 on but 2000."""
    for port in range(1024, 65536):
        if port != 2000:
            linked(crowd.play(WHOLE[:1], port, inside=address_int(C)))


def test_c6_c3_a_closed_connection_leaves_its_port_to_its_own_host_at_once() -> None:
    """C6, C3: where the class is used up. For other hosts the port rests."""
    nat = Nat(max_links=100_000, max_links_per_host=100_000)
    crowd = Crowd(nat)
    full(nat, crowd)
    assert linked(crowd.play(WHOLE, 4000)).outside_port == 2000
    assert crowd.play(WHOLE[:1], 4000, inside=OTHER) is Drop.ALIAS_NO_PORT
    assert linked(crowd.play(WHOLE[:1], 4002)).outside_port == 2000
    assert crowd.play(WHOLE[:1], 4004) is Drop.ALIAS_NO_PORT, "a live connection has it now"
    assert linked(crowd.play(WHOLE[:1], 500)).outside_port == 500, "another class"


def test_c6_c3_a_port_that_rests_after_a_closed_connection_is_free_for_its_own_host() -> None:
    """C3: the link is gone already, and its port rests for everybody else."""
    nat = Nat(max_links=100_000, max_links_per_host=100_000)
    crowd = Crowd(nat)
    full(nat, crowd)
    assert linked(crowd.play(WHOLE, 4000)).outside_port == 2000
    nat.aliases.flush({INSIDE}, nat.now)
    assert crowd.play(WHOLE[:1], 4000, inside=OTHER) is Drop.ALIAS_NO_PORT
    assert linked(crowd.play(WHOLE[:1], 4002)).outside_port == 2000
    nat.aliases.flush({INSIDE}, nat.now)
    assert crowd.play(WHOLE[:1], 4004) is Drop.ALIAS_NO_PORT, "the second connection was not closed"
    nat.after(120)
    assert linked(crowd.play(WHOLE[:1], 4000, inside=OTHER)).outside_port == 2000


def test_c6_c3_a_host_preserves_a_port_that_rests_after_its_own_connection() -> None:
    nat = Nat()
    crowd = Crowd(nat)
    linked(crowd.play(WHOLE[:1], 5000, inside=OTHER))
    drawn = linked(crowd.play(WHOLE, 5000)).outside_port
    assert drawn != 5000
    nat.aliases.flush({INSIDE}, nat.now)
    assert linked(crowd.play(WHOLE[:1], drawn, inside=OTHER)).outside_port != drawn
    assert linked(crowd.play(WHOLE[:1], drawn)).outside_port == drawn


def test_c6_a_host_that_holds_its_share_goes_on_with_its_own_ports() -> None:
    """C6, C1: the last quarter of ports stays free for hosts with few links."""
    nat = Nat(max_links_per_host=100, max_links=1000, hosts=4)
    crowd = Crowd(nat)
    for number in range(62_000):
        linked(crowd.play(WHOLE, 2000 + number))
    space = nat.aliases.store._spaces[Egress.TAP1][ipv4.TCP]
    assert space.left == 65_536 // 4
    assert linked(crowd.play(WHOLE, 1999, inside=OTHER)).outside_port == 1999


def test_c6_a_lowered_limit_is_reached_by_and_by() -> None:
    nat = Nat(max_links=100_000, max_links_per_host=100_000)
    crowd = Crowd(nat)
    for number in range(100):
        linked(crowd.play(WHOLE, 2000 + number))
    lower = Nat(max_links_per_host=50).settings
    nat.aliases.reconfigure(lower, [], [], nat.now)
    answers = [crowd.play(WHOLE[:1], 6000 + number) for number in range(20)]
    assert any(isinstance(answer, Link) for answer in answers)
    assert len(nat.links()) <= 50


def test_c6_a_link_taken_up_after_a_restart_is_as_closed_as_it_was() -> None:
    nat, later = Nat(), Nat(max_links_per_host=1)
    kept = saved(linked(Crowd(nat).play(WHOLE, 5000)))
    assert later.aliases.restore(kept, later.now) is not None
    linked(Crowd(later).play(WHOLE[:1], 6000))
    again = Nat(max_links_per_host=1)
    assert again.aliases.restore(kept._replace(has_others=True), again.now) is not None
    assert Crowd(again).play(WHOLE[:1], 6000) is Drop.ALIAS_HOST_LIMIT, "the other remotes may be open"


def test_an_acknowledgment_that_is_due_is_not_to_be_repeated() -> None:
    """C6: the walk has to see the last acknowledgment, in both directions."""
    nat = Nat()
    crowd = Crowd(nat)
    link = linked(crowd.play(WHOLE[:4], 5000))
    assert nat.aliases.is_half_closed(link, REMOTE, 80)
    assert nat.aliases.holds_until(link, REMOTE, 80, nat.now, outbound=True)
    linked(crowd.play(WHOLE[3:5], 5000))
    for outbound in (False, True):
        assert nat.aliases.holds_until(link, REMOTE, 80, nat.now, outbound=outbound) == 0
    linked(crowd.play(WHOLE[5:], 5000))
    assert not nat.aliases.is_half_closed(link, REMOTE, 80)
    for outbound in (False, True):
        assert nat.aliases.holds_until(link, REMOTE, 80, nat.now, outbound=outbound) == link.expires_ns


def test_the_rows_of_closed_links_agree_with_looking_at_all_of_them() -> None:
    """Any order of closing, opening again and ending."""
    rng = random.Random(7)
    closed = Closed()
    links = [Link(egress, ipv4.TCP, host, port, port, 0, 0)
             for egress in Egress for host in (1, 2) for port in (80, 5000, 5001)]  # fmt: skip
    since: dict[Link, int] = {}
    now = 0
    for _ in range(4000):
        now += rng.choice([0, 1, QUIET_NS // 4])
        link, closing = rng.choice(links), rng.randrange(3)
        if closing != link.closing:
            since.pop(link, None)
            if closing:
                since[link] = now + (QUIET_NS if closing == 2 else 0)
        closed.judge(link, closing, now)
        ripe = [link for link in since if since[link] <= now]

        def first(links: list[Link]) -> int | None:
            return min((since[link] for link in links), default=None)

        for found, among in [
            (closed.longest(now), ripe),
            (closed.longest_of_host(1, now), [link for link in ripe if link.inside == 1]),
            (
                closed.longest_of_class(2, Egress.VPN, now, is_low=True),
                [link for link in ripe if (link.inside, link.egress, link.inside_port) == (2, Egress.VPN, 80)],
            ),
        ]:
            assert (None if found is None else since[found]) == first(among)
    assert len(closed) == len(since)


def test_scapy_reads_a_whole_connection_that_gives_way() -> None:
    """C6 with real segments, sequence numbers and options."""
    nat = Nat(max_links_per_host=1)
    call = Call(nat).opened()
    passed(call.out("PA", b"request"))
    passed(call.back("PA", b"answer"))
    passed(call.back("FA"))
    passed(call.out("FA"))
    assert nat.out(IP(src=A, dst=F) / TCP(sport=6000, dport=80, flags="S")) is Drop.ALIAS_HOST_LIMIT
    passed(call.back("A"))
    assert nat.now >= seconds_ns(START)
    assert passed(nat.out(IP(src=A, dst=F) / TCP(sport=6000, dport=80, flags="S")))[TCP].sport == 6000
