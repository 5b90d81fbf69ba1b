"""Which port a link gets: RFC 4787 4.2, RFC 7857 9, RFC 6888 REQ-4, 8 and 11."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from alias.draws import Draws
from alias.ports import USED, PortSpace, endpoint_key
from alias.types import Egress, Forward, Link
from tests.alias.nat import A, B, C, E, F, Nat, udp
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import UDP
from wire.units import address_int, seconds_ns

REMOTE, OTHER_REMOTE = address_int(E), address_int(F)


def port_of(nat: Nat, inside: str, port: int, remote: int = REMOTE) -> int | Drop:
    link = nat.aliases.outbound(nat.egress, udp(address_int(inside), port, remote, 7000), nat.now)
    return link if isinstance(link, Drop) else link.outside_port


def crowded(**settings: int) -> Nat:
    """A NAT where C has all ports from 1024 on but 2000 and 2001."""
    nat = Nat(max_links=100_000, max_links_per_host=100_000, **settings)
    for port in range(1024, 65536):
        if port not in (2000, 2001):
            assert port_of(nat, C, port) == port
    return nat


@pytest.mark.parametrize("port", [1, 500, 1023, 1024, 5000, 65535])
def test_a_free_port_is_preserved_and_another_one_has_its_class_and_parity(port: int) -> None:
    """U3a, U3b, U4."""
    for seed in range(50):
        nat = Nat(seed=seed)
        assert port_of(nat, A, port) == port
        other = port_of(nat, B, port)
        assert isinstance(other, int)
        assert (other < 1024) == (port < 1024)
        assert other % 2 == port % 2
        assert other not in (port, 0)


def test_another_port_cannot_be_predicted() -> None:
    """R7, U3b: a thousand collisions; no runs of +1 or +2, and every stretch of the range gets its share."""
    drawn = []
    for seed in range(1000):
        nat = Nat(seed=seed)
        port_of(nat, A, 5000)
        port = port_of(nat, B, 5000)
        assert isinstance(port, int)
        drawn.append(port)
    steps = Counter(after - before for before, after in pairwise(drawn))
    assert steps[1] == steps[2] == 0
    bins = Counter((port - 1024) * 16 // (65536 - 1024) for port in drawn)
    chi_square = sum((bins[index] - 1000 / 16) ** 2 / (1000 / 16) for index in range(16))
    assert chi_square < 37.7, "15 degrees of freedom, p = 0.001"


def test_links_that_are_made_one_after_the_other_get_unrelated_ports() -> None:
    """R7."""
    nat = Nat(max_links_per_host=100_000)
    for port in range(10_000, 12_000):
        port_of(nat, A, port)
    drawn = [port_of(nat, B, port) for port in range(10_000, 12_000)]
    assert all(isinstance(port, int) for port in drawn)
    assert sum(abs(int(after) - int(before)) <= 2 for before, after in pairwise(drawn)) < 5


def test_the_other_parity_serves_where_one_is_exhausted_and_never_another_class() -> None:
    """U3a, U4, I8."""
    nat = crowded()
    assert port_of(nat, A, 4000) == 2000
    assert port_of(nat, A, 4002) == 2001
    assert port_of(nat, A, 4004) is Drop.ALIAS_NO_PORT
    assert port_of(nat, A, 4005) is Drop.ALIAS_NO_PORT
    assert port_of(nat, A, 500) == 500


def test_exhaustion_refuses_the_new_and_keeps_the_live() -> None:
    """C4."""
    nat = crowded()
    port_of(nat, A, 2000)
    port_of(nat, A, 2001)
    before = {(link.inside, link.inside_port): link.outside_port for link in nat.links()}
    for port in range(3000, 3100):
        assert port_of(nat, B, port) is Drop.ALIAS_NO_PORT
    assert {(link.inside, link.inside_port): link.outside_port for link in nat.links()} == before
    assert port_of(nat, C, 60_000, OTHER_REMOTE) == 60_000


def test_max_links_refuses_the_new_and_keeps_the_live() -> None:
    """C4, I8."""
    nat = Nat(max_links=3)
    for port in (5000, 5001):
        assert port_of(nat, A, port) == port
    assert port_of(nat, B, 6000) == 6000
    assert port_of(nat, B, 6001) is Drop.ALIAS_TABLE_FULL
    nat.at(200)
    assert port_of(nat, A, 5000) == 5000
    nat.at(300)
    assert port_of(nat, B, 6001) == 6001, "two have expired"


def test_expired_links_make_room_even_where_nobody_called_tick() -> None:
    nat = Nat(max_links=2)
    port_of(nat, A, 5000)
    port_of(nat, A, 5001)
    nat.now += seconds_ns(301)
    assert port_of(nat, B, 6000) == 6000
    assert len(nat.aliases.take_events()) == 5


def test_a_host_has_a_limit_of_its_own_for_all_protocols_and_egresses_together() -> None:
    """C1: others are not affected; static forwards do not count."""
    forward = Forward(Egress.TAP1, ipv4.TCP, 8080, address_int(A), 80)
    nat = Nat(max_links_per_host=4, forwards=[forward])
    assert port_of(nat, A, 5000) == 5000
    nat.out(IP(src=A, dst=E) / ICMP(id=7))
    nat.out(IP(src=A, dst=E, proto=47) / b"gre")
    nat.egress = Egress.VPN
    nat.out(IP(src=A, dst=E) / TCP(sport=5000, flags="S"))
    for egress in Egress:
        nat.egress = egress
        assert port_of(nat, A, 5001) is Drop.ALIAS_HOST_LIMIT
        assert nat.out(IP(src=A, dst=F, proto=47) / b"gre") is Drop.ALIAS_HOST_LIMIT
    assert port_of(nat, B, 5002) == 5002
    nat.at(60)
    assert port_of(nat, A, 5001) == 5001, "the ICMP query has expired"


def test_a_freed_port_rests_for_120_seconds() -> None:
    """C3."""
    nat = crowded()
    assert port_of(nat, A, 2000) == 2000
    nat.at(299)
    for port in range(1024, 65536):
        if port not in (2000, 2001):
            port_of(nat, C, port)
    nat.at(300)
    assert [link.outside_port for _, link in nat.ended] == [2000]
    nat.at(419)
    assert port_of(nat, B, 2001) == 2001
    assert port_of(nat, B, 4000) is Drop.ALIAS_NO_PORT
    assert port_of(nat, A, 4000) is Drop.ALIAS_NO_PORT, "another endpoint of the same host"
    nat.at(420)
    assert port_of(nat, B, 4000) == 2000


def test_the_endpoint_that_had_a_resting_port_may_have_it_back() -> None:
    """C3."""
    nat = Nat()
    port_of(nat, B, 5000)
    drawn = port_of(nat, A, 5000)
    nat.at(350)
    assert nat.links() == []
    assert port_of(nat, A, 5000) == drawn
    assert port_of(nat, C, 5000) not in (5000, drawn)
    nat.at(349 + 301)
    assert port_of(nat, A, 5000) == drawn, "again"


def test_ports_rest_after_a_flush_too() -> None:
    """C3."""
    nat = Nat()
    port_of(nat, A, 5000)
    nat.aliases.flush(None, nat.now)
    assert port_of(nat, B, 5000) != 5000
    assert port_of(nat, A, 5000) == 5000


def test_reserved_ports_and_port_0_are_never_allotted() -> None:
    """P11, Trap 2."""
    reserved = [(Egress.TAP1, UDP, 51820), (Egress.TAP1, UDP, 68)]
    for seed in range(20):
        nat = Nat(reserved=reserved, seed=seed, max_links=100_000, max_links_per_host=100_000)
        assert port_of(nat, A, 51820) != 51820
        got = [port_of(nat, A, port) for port in range(1, 1024)]
        assert got.count(Drop.ALIAS_NO_PORT) == 1
        assert not {0, 68} & set(got)
    nat.egress = Egress.VPN
    assert port_of(nat, A, 51820) == 51820, "reserved on tap1 only"


def test_reserved_ports_follow_the_configuration() -> None:
    nat = Nat(reserved=[(Egress.TAP1, UDP, 51820)])
    nat.aliases.reconfigure(nat.settings, [], [(Egress.TAP1, UDP, 4000)], nat.now)
    assert port_of(nat, A, 51820) == 51820
    assert port_of(nat, A, 4000) != 4000


def test_icmp_identifiers_have_neither_class_nor_parity() -> None:
    space = PortSpace(has_classes=False)
    draws = Draws(random.Random(3))
    drawn = set()
    for number in range(200):
        identifier = space.allocate(endpoint_key(number, 500), 500, draws, 0)
        assert identifier is not None
        drawn.add(identifier)
        space.take(Link(Egress.TAP1, 1, number, 500, identifier, 0, 0))
    assert len(drawn) == 200
    assert {identifier % 2 for identifier in drawn} == {0, 1}
    assert max(drawn) > 1024


def test_every_free_port_is_found_in_the_end() -> None:
    space = PortSpace(has_classes=True)
    draws = Draws(random.Random(3))
    found = set()
    for number in range(70_000):
        port = space.allocate(endpoint_key(number, 5000), 5000, draws, 0)
        if port is None:
            break
        found.add(port)
        space.take(Link(Egress.TAP1, UDP, number, 5000, port, 0, 0))
    assert found == set(range(1024, 65536))


def stations() -> list[str]:
    """Every address of the LAN but A's and B's."""
    return [f"192.168.200.{last}" for last in range(3, 255) if f"192.168.200.{last}" not in (A, B)]


def take_all(nat: Nat, protocols: int) -> int:
    """A station with all these addresses opens links until nothing more is to be had; how many it got."""
    got = 0
    for egress in list(Egress)[:protocols]:
        nat.egress = egress
        for address in stations():
            for port in range(1024, 1024 + 8192):
                if isinstance(port_of(nat, address, port), Drop):
                    break
                got += 1
    return got


@pytest.mark.parametrize("ways", [1, 2])
def test_who_takes_all_links_under_every_address_of_the_lan_leaves_some_for_hosts_with_few(ways: int) -> None:
    """C1, C4: the last quarter of all links (or of one egress' ports) is for hosts with less than an even part."""
    nat = Nat()
    nat.egress = Egress.TAP1
    assert port_of(nat, A, 1024) == 1024
    got = take_all(nat, ways)
    assert got > 60_000
    nat.egress = Egress.TAP1
    assert port_of(nat, A, 1024) == 1024, "an established link stays"
    for port in range(2000, 2050):
        assert isinstance(port_of(nat, A, port), int)
        assert isinstance(port_of(nat, B, port), int)
    assert len(nat.aliases) == got + 1 + 100
    assert min(nat.aliases.store._limits.hosts[address_int(address)].links for address in stations()) == 64
    assert isinstance(port_of(nat, stations()[0], 60_000), Drop)


def test_where_one_host_may_have_all_links_nothing_is_kept_for_others() -> None:
    nat = Nat(max_links=64, max_links_per_host=64)
    assert all(port_of(nat, A, 2000 + number) == 2000 + number for number in range(64))
    assert port_of(nat, B, 5000) is Drop.ALIAS_TABLE_FULL


def test_a_host_within_its_limit_gets_all_of_it_while_others_hold_little() -> None:
    """C1: the limit of a host is not touched by what is kept for others."""
    nat = Nat()
    assert all(port_of(nat, A, 1024 + number) == 1024 + number for number in range(8192))
    assert port_of(nat, A, 60_000) is Drop.ALIAS_HOST_LIMIT
    assert port_of(nat, B, 1024) != 1024


def test_a_port_where_the_gateway_itself_listens_is_never_allotted_and_marked_as_used() -> None:
    """D2: 68 is the DHCP client's."""
    nat = Nat()
    nat.aliases.listen(nat.egress, UDP, 68)
    marks = nat.aliases.marks(nat.egress, UDP)
    assert marks[68 >> 1] & USED, "who drops what nobody has leaves it to the walk"
    assert port_of(nat, A, 68) not in (68, None)
    nat.aliases.reconfigure(nat.aliases.settings, (), (), nat.now)
    assert port_of(nat, B, 68) != 68
    assert marks[68 >> 1] & USED
