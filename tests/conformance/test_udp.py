"""UDP through the NAT (RFC 4787), on both egresses. Rows U1 to U14, R4, R6 and R7 of the checklist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from scapy.packet import Packet as ScapyPacket

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_L, ADDRESS_O, ADDRESS_V, HOST, ICMP, IP, UDP, A, B, E, F
from tests.conformance.packets import Endpoint, ends, error, only, payload, raw_ip, tcp, udp, way
from wire.drop import Drop

ROUTER = "198.51.100.1"  # somewhere on the way, and never spoken to


def test_u1_one_inside_endpoint_has_one_name_towards_every_remote(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for remote in ((E, 1), (E, 2), (F, 1), (F, 2), (E, 1)):
        assert way(only(s.inside(udp((A, 5000), remote)))) == (egress, (s.X, 5000), remote)


def test_u1_a_name_that_was_not_the_preferred_one_is_as_constant(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    names = {ends(only(s.inside(udp((B, 5000), remote))))[0] for remote in ((E, 1), (E, 2), (F, 1), (F, 2))}
    assert len(names) == 1
    assert names != {(s.X, 5000)}


def test_u2_an_endpoint_has_one_name_on_each_egress(make: MakeScenario) -> None:
    s = make("O")
    s.inject("U", udp((HOST, 5000), (E, 1)))  # takes the preferred port on tap1, but not in the tunnel
    offloaded, tunnelled = only(s.inside(udp((A, 5000), (E, 1)))), only(s.inside(udp((A, 5000), ("8.8.8.8", 1))))
    assert (offloaded.port, offloaded.ip.src) == ("O", ADDRESS_O)
    assert way(tunnelled) == ("V", (ADDRESS_V, 5000), ("8.8.8.8", 1))
    outside_port = ends(offloaded)[0][1]
    assert outside_port != 5000
    assert way(only(s.inject("O", udp((E, 1), (ADDRESS_O, outside_port))))) == ("L", (E, 1), (A, 5000))
    assert way(only(s.inject("V", udp(("8.8.8.8", 1), (ADDRESS_V, 5000))))) == ("L", ("8.8.8.8", 1), (A, 5000))
    assert s.inject("V", udp(("8.8.8.8", 1), (ADDRESS_V, outside_port))) == []  # a name holds on its own egress only
    assert s.inject("V", udp(("8.8.8.8", 1), (ADDRESS_O, 5000))) == []
    assert s.inject("O", udp((E, 1), (ADDRESS_V, 5000))) == []


@pytest.mark.parametrize("packet", [udp, partial(tcp, flags="S")], ids=["udp", "tcp"])
def test_u3_t7_two_inside_endpoints_never_share_a_name(
    make: MakeScenario, egress: str, packet: Callable[[Endpoint, Endpoint], ScapyPacket]
) -> None:
    s = make(egress)
    assert ends(only(s.inside(packet((A, 5000), (E, 1)))))[0] == (s.X, 5000)
    to_e, to_f = (ends(only(s.inside(packet((B, 5000), (remote, 1)))))[0] for remote in (E, F))
    assert to_e == to_f != (s.X, 5000)


def test_u3a_u4_class_and_parity_of_the_port_survive_a_collision(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for inside_port in (53, 500, 501, 1023, 1024, 1025, 5000, 5001, 65534, 65535):
        assert ends(only(s.inside(udp((A, inside_port), (E, 1)))))[0] == (s.X, inside_port)
        outside_port = ends(only(s.inside(udp((B, inside_port), (E, 1)))))[0][1]
        assert outside_port != inside_port
        assert outside_port > 0
        assert (outside_port < 1024) == (inside_port < 1024)
        assert outside_port % 2 == inside_port % 2


def test_u3b_a_free_port_is_kept_whatever_other_protocols_and_egresses_use(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(tcp((A, 5000), (E, 1), "S"))
    s.inject("U", udp((HOST, 5000), ("8.8.8.8", 1)))  # in the tunnel the host has its own address
    assert ends(only(s.inside(udp((B, 5000), (E, 1)))))[0] == (s.X, 5000)


def test_r7_u3b_ports_that_have_to_change_are_drawn_at_random(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    names = []
    for inside_port in range(20_000, 21_000):
        s.inside(udp((A, inside_port), (E, 1)))
        names.append(ends(only(s.inside(udp((B, inside_port), (E, 1)))))[0][1])
    assert len(set(names)) == len(names)
    steps = [after - before for before, after in pairwise(names)]
    assert Counter(steps).most_common(1)[0][1] <= 5, "a run of equal steps"
    sixteenths = Counter((name - 1024) * 16 // (65_536 - 1024) for name in names)
    expected = len(names) / 16
    chi_square = sum((sixteenths[part] - expected) ** 2 / expected for part in range(16))
    assert chi_square < 37.7, "15 degrees of freedom: a flat choice is beyond this once in a thousand seeds"


def test_r7_another_seed_draws_other_ports(make: MakeScenario, egress: str) -> None:
    drawn = set()
    for seed in (1, 2):
        s = make(egress, seed=seed)
        s.inside(udp((A, 5000), (E, 1)))
        drawn.add(ends(only(s.inside(udp((B, 5000), (E, 1)))))[0])
    assert len(drawn) == 2


@pytest.mark.parametrize(("timeout", "toml"), [(300, ""), (120, "[alias]\nudp_timeout = 120\n")])
def test_u5_a_mapping_lives_for_its_timeout_and_no_longer(
    make: MakeScenario, egress: str, timeout: int, toml: str
) -> None:
    s = make(egress, toml)
    s.inside(udp((A, 5000), (E, 1)))
    for seconds in (119, timeout - 120, 0.999_999_999):
        s.advance(seconds)
        assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 5000))
    s.advance(0.000_000_001)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []
    assert s.dropped == Drop.ALIAS_NO_LINK


def test_u5a_a_mapping_of_a_name_server_query_lives_as_long_as_any(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 53)))
    s.advance(299)
    assert way(only(s.outside(udp((E, 53), (s.X, 5000))))) == ("L", (E, 53), (A, 5000))


def test_u6_a_packet_to_any_remote_refreshes_the_mapping(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    s.advance(200)
    s.inside(udp((A, 5000), (F, 9)))
    s.advance(299)
    assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 5000))
    s.advance(1)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_u6a_packets_from_outside_do_not_keep_a_mapping(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    s.advance(299)
    assert len(s.outside(udp((E, 1), (s.X, 5000)))) == 1
    s.advance(2)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_u6a_packets_from_outside_keep_a_mapping_where_the_operator_wants_it(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nrefresh_inbound = true\n")
    s.inside(udp((A, 5000), (E, 1)))
    for seconds in (299, 299, 299):
        s.advance(seconds)
        assert way(only(s.outside(udp((F, 7), (s.X, 5000))))) == ("L", (F, 7), (A, 5000))
    s.advance(300)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_u8_anybody_reaches_a_mapped_endpoint(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    for stranger in ((E, 9), (F, 1), (F, 65535), ("198.51.100.77", 40_000)):
        got = only(s.outside(udp(stranger, (s.X, 5000), b"hello")))
        assert (*way(got), payload(got)) == ("L", stranger, (A, 5000), b"hello")


def test_u8_address_dependent_filtering_lets_in_who_was_spoken_to(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    s.inside(udp((A, 5000), (E, 1)))
    assert s.outside(udp((F, 1), (s.X, 5000))) == []
    assert s.dropped == Drop.ALIAS_FILTERED
    assert way(only(s.outside(udp((E, 999), (s.X, 5000))))) == ("L", (E, 999), (A, 5000)), "the port does not matter"
    assert ends(only(s.inside(udp((A, 5000), (F, 1)))))[0] == (s.X, 5000), "filtering does not touch the mapping"
    for stranger in ((F, 8), (E, 8)):
        assert way(only(s.outside(udp(stranger, (s.X, 5000))))) == ("L", stranger, (A, 5000))
    s.inside(udp((B, 6000), ("198.51.100.9", 1)))
    assert s.outside(udp(("198.51.100.9", 1), (s.X, 5000))) == [], "what B asked for is no leave to reach A"


def test_u8_address_dependent_filtering_forgets_with_the_mapping(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    s.inside(udp((A, 5000), (E, 1)))
    s.advance(301)
    assert ends(only(s.inside(udp((A, 5000), (F, 1)))))[0] == (s.X, 5000)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []
    assert s.dropped == Drop.ALIAS_FILTERED


def test_u8_address_dependent_filtering_remembers_many_remotes_of_one_endpoint(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\nmax_links = 1\n')
    remotes = [(f"203.0.113.{number}", 1) for number in range(1, 101)]
    for remote in remotes:
        s.inside(udp((A, 5000), remote))
    for remote in remotes:
        assert way(only(s.outside(udp(remote, (s.X, 5000))))) == ("L", remote, (A, 5000))


def test_u8_address_dependent_filtering_lets_icmp_errors_in_from_anybody(make: MakeScenario, egress: str) -> None:
    """U12a: a router on the way was never spoken to."""
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    sent = only(s.inside(udp((A, 5000), (E, 1))))
    got = only(s.outside(error(ROUTER, s.X, 11, 0, raw_ip(sent))))
    assert (got.port, got.ip.src, got.ip.dst) == ("L", ROUTER, A)


def test_u10_a_sip_body_with_a_private_address_passes_byte_for_byte(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    body = (
        f"INVITE sip:bob@{E} SIP/2.0\r\nVia: SIP/2.0/UDP {A}:5060;rport\r\nContact: <sip:alice@{A}:5060>\r\n"
        f"Content-Type: application/sdp\r\n\r\nv=0\r\no=- 0 0 IN IP4 {A}\r\nc=IN IP4 {A}\r\nm=audio 40000 RTP/AVP 0\r\n"
    ).encode()
    out = only(s.inside(udp((A, 5060), (E, 5060), body)))
    assert (*way(out), payload(out)) == (egress, (s.X, 5060), (E, 5060), body)
    back = only(s.outside(udp((E, 5060), (s.X, 5060), body)))
    assert (*way(back), payload(back)) == ("L", (E, 5060), (A, 5060), body)


def test_u11_crowding_and_expiry_change_no_behaviour(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for inside_port in range(1, 973):  # 95 % of the ports below 1024, the class that has the fewest
        s.inside(udp((A, inside_port), (E, 1)))
    for _ in range(2):
        names = {ends(only(s.inside(udp((B, 7), remote))))[0] for remote in ((E, 1), (E, 2), (F, 1))}
        assert len(names) == 1
        name = names.pop()
        assert name[0] == s.X
        assert 0 < name[1] < 1024
        for stranger in ((E, 1), (F, 9)):
            assert way(only(s.outside(udp(stranger, name)))) == ("L", stranger, (B, 7))
        s.advance(301)


@pytest.mark.parametrize(
    ("kind", "code"), [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (4, 0), (5, 1), (11, 0), (11, 1), (12, 0)]
)
def test_u12_no_icmp_message_ends_shortens_or_prolongs_a_mapping(
    make: MakeScenario, egress: str, kind: int, code: int
) -> None:
    s = make(egress)
    sent = only(s.inside(udp((A, 5000), (E, 1))))
    s.advance(100)
    for source in (E, ROUTER):
        s.outside(error(source, s.X, kind, code, raw_ip(sent), mtu=1400 if (kind, code) == (3, 4) else 0))
    s.advance(199)
    assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 5000))
    s.advance(1)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


@pytest.mark.parametrize("source", [E, ROUTER, "10.9.8.7"])
@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 9, 10, 13])
def test_u12a_u12b_unreachables_reach_the_host_whoever_sends_them(
    make: MakeScenario, egress: str, source: str, code: int
) -> None:
    s = make(egress)
    s.inside(udp((B, 5000), (E, 1)))  # so that A has another port outside than inside
    sent = only(s.inside(udp((A, 5000), (E, 1), b"the payload")))
    got = only(s.outside(error(source, s.X, 3, code, raw_ip(sent), mtu=1300 if code == 4 else 0)))
    assert (got.port, got.ip.src, got.ip.dst, got.ip[ICMP].type, got.ip[ICMP].code) == ("L", source, A, 3, code)
    quoted = IP(raw_ip(got)[28:])
    assert (quoted.src, quoted[UDP].sport, quoted.dst, quoted[UDP].dport) == (A, 5000, E, 1)
    original = IP(bytes(udp((A, 5000), (E, 1), b"the payload", ttl=63)))
    assert bytes(quoted) == bytes(original), "the host finds the very bytes that it sent, one hop later"
    if code == 4:
        assert raw_ip(got)[26:28] == (1300).to_bytes(2, "big")


def test_u13_a_datagram_with_df_that_is_too_big_is_refused_with_the_mtu_and_maps_nothing(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress, replace=(('gateway = "192.168.1.1"', 'gateway = "192.168.1.1"\nmtu = 1420'),))
    refusal = only(s.inside(udp((A, 5000), (E, 1), bytes(1421 - 28), flags="DF")))
    assert (refusal.port, refusal.ip.src, refusal.ip.dst) == ("L", ADDRESS_L, A)
    assert raw_ip(refusal)[20:22] == b"\x03\x04"
    assert raw_ip(refusal)[24:28] == (1420).to_bytes(4, "big")
    assert ends(only(s.inside(udp((B, 5000), (E, 1)))))[0] == (s.X, 5000), "A's datagram has taken no port"
    fits = only(s.inside(udp((A, 5000), (E, 1), bytes(1420 - 28), flags="DF")))
    assert (fits.port, len(raw_ip(fits))) == (egress, 1420)


def test_u13a_a_datagram_without_df_is_fragmented_in_order(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=(('gateway = "192.168.1.1"', 'gateway = "192.168.1.1"\nmtu = 1420'),))
    data = bytes(range(256)) * 5 + bytes(192)  # 1,472 bytes: 1,500 with both headers
    outs = s.inside(udp((A, 5000), (E, 1), data, id=0x1234))
    assert [(out.port, out.ip.src, out.ip.dst, out.ip.id, out.ip.frag, int(out.ip.flags)) for out in outs] == [
        (egress, s.X, E, 0x1234, 0, 1),
        (egress, s.X, E, 0x1234, 175, 0),
    ]
    assert all(len(raw_ip(out)) <= 1420 for out in outs)
    whole = b"".join(raw_ip(out)[20:] for out in outs)
    # by hand, since no fragment carries a checksum of its own: scapy's datagram with our address must be the same bytes
    assert whole == bytes(udp((s.X, 5000), (E, 1), data))[20:]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_u14_fragments_follow_their_first_one_in_any_order_of_arrival(
    make: MakeScenario, egress: str, order: tuple[int, ...]
) -> None:
    s = make(egress)
    s.inside(udp((B, 5000), (E, 1)))
    whole = bytes(udp((A, 5000), (E, 1), bytes(range(256)) * 8))[20:]
    parts = [
        IP(src=A, dst=E, proto=17, id=77, flags="MF" if at < 1600 else 0, frag=at // 8) / whole[at : at + 800]
        for at in (0, 800, 1600)
    ]
    outs = [out for number in order for out in s.inside(parts[number])]
    assert {(out.port, out.ip.src, out.ip.dst, out.ip.id) for out in outs} == {(egress, s.X, E, 77)}
    got = {out.ip.frag * 8: raw_ip(out)[20:] for out in outs}
    assert sorted(got) == [0, 800, 1600]
    together = b"".join(got[at] for at in sorted(got))
    outside_port = int.from_bytes(together[:2], "big")
    assert outside_port != 5000
    assert together == bytes(udp((s.X, outside_port), (E, 1), bytes(range(256)) * 8))[20:]


def test_u14_orphan_fragments_do_not_hold_up_whole_datagrams_of_the_same_host(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for identification in range(300):
        assert s.inside(IP(src=A, dst=E, proto=17, id=identification, frag=100) / bytes(64)) == []
        assert s.outside(IP(src=E, dst=s.X, proto=17, id=identification, frag=100) / bytes(64)) == []
    assert way(only(s.inside(udp((A, 5000), (E, 1))))) == (egress, (s.X, 5000), (E, 1))
    assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 5000))


def test_r4_a_udp_mapping_is_no_tcp_mapping(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    assert s.outside(tcp((E, 1), (s.X, 5000), "S")) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    assert s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=5000)) == []
    assert way(only(s.inside(tcp((B, 5000), (E, 1), "S")))) == (egress, (s.X, 5000), (E, 1))
    assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 5000))
    assert way(only(s.outside(tcp((E, 1), (s.X, 5000), "SA")))) == ("L", (E, 1), (B, 5000))


def test_r5_an_error_that_answers_a_packet_from_outside_does_not_keep_the_mapping(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    s.advance(250)
    probe = only(s.outside(udp((E, 1), (s.X, 5000), b"probe")))
    answer = only(s.inside(error(A, E, 3, 3, raw_ip(probe))))
    assert (answer.port, answer.ip.src, answer.ip.dst) == (egress, s.X, E)
    quoted = IP(raw_ip(answer)[28:])
    assert (quoted.src, quoted.dst, quoted[UDP].sport, quoted[UDP].dport) == (E, s.X, 1, 5000)
    s.advance(51)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_what_no_link_knows_meets_silence_and_never_the_host(make: MakeScenario, egress: str) -> None:
    """U8: a packet to the alias address is not the host's, whatever its port (trap 1)."""
    s = make(egress)
    s.inject("U", udp((HOST, 5000), ("8.8.8.8", 1)))  # the host's own flow in the tunnel is no link
    for port in (5000, 68, 53, 51_820, 65_535):
        assert s.outside(udp((E, 1), (s.X, port))) == []
        assert s.dropped == Drop.ALIAS_NO_LINK
    assert s.advance(30) == []


def test_the_tunnels_own_port_is_never_given_to_a_link_on_tap1(make: MakeScenario) -> None:
    """U3b: the tunnel sends from it beside the aliased traffic (trap 2); elsewhere it is a port like any."""
    s = make("O", "[tunnel]\nlisten_port = 40000\n")
    name = ends(only(s.inside(udp((A, 40_000), (E, 1)))))[0]
    assert name[1] != 40_000
    assert (name[1] % 2, name[1] >= 1024) == (0, True)
    assert s.outside(udp((E, 1), (s.X, 40_000))) == []
    assert ends(only(s.inside(udp((A, 40_000), ("8.8.8.8", 1)))))[0] == (ADDRESS_V, 40_000)
    assert ends(only(s.inside(tcp((A, 40_000), (E, 1), "S"))))[0] == (s.X, 40_000)
