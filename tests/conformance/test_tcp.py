"""TCP through the NAT (RFC 5382), on both egresses. Rows T1 to T10 and R2 of the checklist."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.connection import CLIENT, IRS, ISS, MODULUS, SERVER, Connection
from tests.conformance.harness import ICMP, A, B, E, F
from tests.conformance.packets import ends, error, only, payload, raw_ip, tcp, udp, way
from wire.drop import Drop

ROUTER = "198.51.100.1"


def test_t1_one_inside_endpoint_has_one_name_towards_every_remote(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(tcp((B, 5000), (E, 80), "S"))
    names = {ends(only(s.inside(tcp(CLIENT, remote, "S"))))[0] for remote in ((E, 80), (E, 443), (F, 80))}
    assert len(names) == 1
    assert names != {(s.X, 5000)}, "that one is B's"


def test_t2_a_connection_from_inside_with_both_orders_of_close(make: MakeScenario, egress: str) -> None:
    for port, first in ((5000, "inside"), (5001, "outside")):
        c = Connection(make(egress), (A, port))
        c.out("S", seq=0, options=[("MSS", 1300), ("SAckOK", b""), ("NOP", None), ("WScale", 7)])
        c.out("S", seq=0)  # retransmitted
        c.come("SA", seq=0, options=[("MSS", 1300), ("NOP", None), ("WScale", 9)])
        c.out("A")
        c.out("PA", b"GET / HTTP/1.0\r\n\r\n")
        c.come("A", ack=19)
        c.come("PA", bytes(1300), ack=19)
        c.out("A", seq=19, ack=1301)
        c.out("A", seq=18, ack=1301)  # a keepalive stands one byte behind
        c.come("A", seq=1301, ack=19)
        closing = [(c.out, 19, 1301), (c.come, 1301, 19)]
        for segment, seq, ack in closing if first == "inside" else closing[::-1]:
            segment("FA", seq=seq, ack=ack)
        c.come("A", seq=1302, ack=20)
        c.out("A", seq=20, ack=1302)
        c.come("FA", seq=1301, ack=20)  # late, once more
        c.out("A", seq=20, ack=1302)


def test_t2_a_half_closed_connection_carries_an_hour_of_data(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    c.out("FA")
    for minute in range(60):
        c.s.advance(60)
        c.come("A", bytes(100), seq=1 + 100 * minute, ack=2)
    c.s.advance(7_439)
    c.come("A", bytes(100), seq=6001, ack=2)


def test_t2_a_half_closed_connection_carries_an_hour_of_requests(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    c.come("FA")
    for minute in range(60):
        c.s.advance(60)
        c.out("A", bytes(100), seq=1 + 100 * minute, ack=2)
    c.s.advance(7_439)
    c.out("A", bytes(100), seq=6001, ack=2)


def test_t2_data_in_the_syn_passes(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", b"early", seq=0)
    c.come("SA", b"answer", seq=0, ack=6)
    c.out("A", seq=6, ack=7)


def test_t2_a_connection_from_outside_over_a_mapping_that_is_there(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    Connection(s, outside=(F, 80)).open()
    c = Connection(s)
    c.come("S", seq=0)
    c.out("SA", seq=0)
    c.come("A")
    c.come("PA", b"hello")
    c.out("A", ack=6)
    s.advance(7_439)
    c.come("FA", seq=6)
    c.out("FA", ack=7)
    c.come("A", seq=7, ack=2)


def test_t2_a_reset_from_either_side_passes(make: MakeScenario, egress: str) -> None:
    for side in ("out", "come"):
        c = Connection(make(egress))
        c.open()
        getattr(c, side)("RA")
        c = Connection(make(egress))
        c.out("S", seq=0)
        if side == "come":
            c.come("RA", seq=0)
        else:
            c.come("SA", seq=0)
            c.out("R")


def test_t2_every_combination_of_flags_passes_a_living_connection(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    for flags in ("", "F", "P", "U", "FPU", "SF", "SR", "SFRPAUEC", "EC", "SEC", "A"):
        c.out(flags)
        c.come(flags)


def test_t2_a_connection_that_is_older_than_the_gateway_goes_on_when_the_inside_sends(
    make: MakeScenario, egress: str
) -> None:
    c = Connection(make(egress))
    c.gone()
    c.out("A", b"more", seq=70_000, ack=80_000)
    c.come("A", seq=80_000, ack=70_004)
    c.s.advance(7_439)
    c.come("PA", b"yes", seq=80_000, ack=70_004)


def test_t2a_simultaneous_open(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", seq=0)
    c.come("S", seq=0)
    c.out("SA", seq=0)
    c.come("SA", seq=0)
    c.out("A")
    c.s.advance(7_439)
    c.come("PA", b"still here")


def test_t2a_simultaneous_open_where_the_inside_comes_second(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress, '[alias]\nunsolicited_syn = "unreachable"\n'))
    assert c.s.outside(tcp(SERVER, c.name, "S", seq=IRS)) == []
    c.s.advance(0.5)
    c.out("S", seq=0)
    c.s.advance(0.5)
    c.come("S", seq=0)
    c.out("SA", seq=0)
    c.come("SA", seq=0)
    assert c.s.advance(30) == []


def test_t3_anybody_reaches_a_mapped_endpoint(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(tcp(CLIENT, SERVER, "S"))
    for stranger in ((E, 81), (F, 80), ("198.51.100.77", 40_000)):
        assert way(only(s.outside(tcp(stranger, (s.X, 5000), "S")))) == ("L", stranger, CLIENT)


def test_t3_address_dependent_filtering_lets_in_who_was_spoken_to(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    s.inside(tcp(CLIENT, SERVER, "S"))
    assert s.outside(tcp((F, 80), (s.X, 5000), "S")) == []
    assert s.dropped == Drop.ALIAS_FILTERED
    assert way(only(s.outside(tcp((E, 81), (s.X, 5000), "S")))) == ("L", (E, 81), CLIENT)
    s.inside(tcp(CLIENT, (F, 443), "S"))
    assert way(only(s.outside(tcp((F, 80), (s.X, 5000), "S")))) == ("L", (F, 80), CLIENT)


def test_t3_a_reset_to_a_stranger_does_not_open_the_filter(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    s.inside(tcp(CLIENT, SERVER, "S"))
    s.inside(tcp(CLIENT, (F, 80), "R"))
    assert s.outside(tcp((F, 80), (s.X, 5000), "S")) == []


@pytest.mark.parametrize("toml", ["", '[alias]\nunsolicited_syn = "silent"\n'])
def test_t4_an_unsolicited_syn_meets_silence(make: MakeScenario, egress: str, toml: str) -> None:
    s = make(egress, toml)
    assert s.outside(tcp(SERVER, (s.X, 5000), "S")) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    assert s.advance(60) == []


def test_t4_an_unsolicited_syn_is_refused_after_six_seconds_where_the_operator_wants_it(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    syn = tcp(SERVER, (s.X, 5000), "S", seq=7, options=[("MSS", 1460)], ttl=51, tos=0x10, id=0x4321)
    assert s.outside(syn) == []
    s.advance(1)
    assert s.outside(syn) == []  # its retransmission starts nothing anew
    assert s.advance(4.999_999_999) == []
    refusal = only(s.advance(0.000_000_001))
    assert (refusal.port, refusal.ip.src, refusal.ip.dst) == (egress, s.X, E)
    assert raw_ip(refusal)[20:22] == b"\x03\x03"
    assert raw_ip(refusal)[28:] == bytes(syn), "the SYN as it came in"
    assert s.advance(60) == []


@pytest.mark.parametrize("data", [0, 100, 496, 497, 1000, 1400])
def test_t4_an_unsolicited_syn_with_data_is_refused_too(make: MakeScenario, egress: str, data: int) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    syn = tcp(SERVER, (s.X, 5000), "S", bytes(data))
    assert s.outside(syn) == []
    refusal = only(s.advance(6))
    assert raw_ip(refusal)[28:] == bytes(syn)[: 576 - 28]


def test_t4_a_syn_from_inside_within_six_seconds_takes_the_refusal_back(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    s.outside(tcp(SERVER, (s.X, 5000), "S"))
    s.outside(tcp((F, 80), (s.X, 5000), "S"))
    s.advance(3)
    s.inside(tcp(CLIENT, SERVER, "S"))
    refusal = only(s.advance(60))  # the other pair's
    assert (refusal.t, refusal.ip.dst) == (6.0, F)


def test_t4_a_filtered_syn_is_unsolicited_as_well(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\nfiltering = "address-dependent"\n')
    s.inside(tcp(CLIENT, SERVER, "S"))
    for remote in ((F, 1), (F, 2)):
        assert s.outside(tcp(remote, (s.X, 5000), "S")) == []
    s.advance(3)
    s.inside(tcp(CLIENT, (F, 1), "S"))
    refusal = only(s.advance(60))
    assert (refusal.t, raw_ip(refusal)[20:22], raw_ip(refusal)[28:]) == (
        6.0,
        b"\x03\x03",
        bytes(tcp((F, 2), (s.X, 5000), "S")),
    )


def test_t4_a_reload_to_silence_takes_every_refusal_back(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    s.outside(tcp(SERVER, (s.X, 5000), "S"))
    s.advance(3)
    s.reload()
    s.outside(tcp((F, 80), (s.X, 5000), "S"))
    assert s.advance(60) == []


def test_t4_a_muted_port_refuses_nothing(make: MakeScenario, egress: str) -> None:
    """I9: `icmp.mute` is stronger."""
    muted = "tap1" if egress == "O" else "vpn"
    s = make(egress, f'[alias]\nunsolicited_syn = "unreachable"\n[icmp]\nmute = ["{muted}"]\n')
    s.outside(tcp(SERVER, (s.X, 5000), "S"))
    assert s.advance(60) == []


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "R", "RA", "PA", "SR", ""])
def test_t4_nothing_but_a_syn_is_ever_refused(make: MakeScenario, egress: str, flags: str) -> None:
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    assert s.outside(tcp(SERVER, (s.X, 5000), flags)) == []
    assert s.outside(udp(SERVER, (s.X, 5000))) == []
    assert s.advance(60) == []


@pytest.mark.parametrize(("timeout", "toml"), [(7_440, ""), (9_000, "[alias]\ntcp_established_timeout = 9000\n")])
def test_t5_t5a_an_idle_connection_lives_for_two_hours_and_four_minutes(
    make: MakeScenario, egress: str, timeout: int, toml: str
) -> None:
    c = Connection(make(egress, toml))
    c.open()
    for segment in (c.come, c.out, c.come):  # every packet, from either side, begins the time anew
        c.s.advance(timeout - 1)
        segment("A")
    c.s.advance(timeout)
    c.gone()


@pytest.mark.parametrize(("timeout", "toml"), [(240, ""), (300, "[alias]\ntcp_transitory_timeout = 300\n")])
def test_t5_t5a_a_connection_that_opens_waits_four_minutes_for_its_answer(
    make: MakeScenario, egress: str, timeout: int, toml: str
) -> None:
    c = Connection(make(egress, toml))
    c.out("S", seq=0)
    c.s.advance(timeout - 1)
    c.out("S", seq=0)
    c.s.advance(timeout - 1)
    c.come("SA", seq=0)
    c.s.advance(7_439)
    c.out("A")
    c = Connection(make(egress, toml))
    c.out("S", seq=0)
    c.s.advance(timeout)
    c.gone()


def test_t5_r2_a_closed_connection_lingers_for_four_minutes_of_silence(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    c.out("FA")
    c.come("FA", ack=2)
    for segment in (c.out, c.come, c.come):
        c.s.advance(239)
        segment("A", seq=2, ack=2)
    c.s.advance(240)
    c.gone()


def test_r2_opening_and_closing_take_the_transitory_timer_and_data_the_other(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress, "[alias]\ntcp_transitory_timeout = 250\ntcp_established_timeout = 8000\n"))
    c.open()
    c.s.advance(7_999)
    c.come("FA")
    c.out("FA", ack=2)
    c.s.advance(249)
    c.come("A", seq=2, ack=2)
    c.s.advance(250)
    c.gone()


def test_t6_an_ftp_port_command_passes_unchanged(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress), outside=(E, 21))
    c.open()
    command = b"PORT " + A.replace(".", ",").encode() + b",19,137\r\n"
    c.out("PA", command)
    c.come("PA", b"227 Entering Passive Mode (" + A.replace(".", ",").encode() + b",19,137).\r\n")
    out = only(c.s.inside(tcp(c.inside, c.outside, "PA", command, seq=(ISS + 1) % MODULUS, ack=IRS + 1)))
    assert payload(out) == command


def test_t9_unreachables_reach_the_host_with_its_own_names_in_them(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(tcp((B, 5000), SERVER, "S"))
    syn = tcp(CLIENT, SERVER, "S", seq=ISS, options=[("MSS", 1300)])
    sent = only(s.inside(syn))
    assert ends(sent)[0] != (s.X, 5000)
    for source, code, mtu, quoted_bytes in ((ROUTER, 1, 0, 28), (E, 3, 0, 44), (ROUTER, 4, 1400, 28), (E, 2, 0, 36)):
        got = only(s.outside(error(source, s.X, 3, code, raw_ip(sent)[:quoted_bytes], mtu)))
        assert (got.port, got.ip.src, got.ip.dst) == ("L", source, A)
        assert (got.ip[ICMP].type, got.ip[ICMP].code, raw_ip(got)[26:28]) == (3, code, mtu.to_bytes(2, "big"))
        hop_later = syn.copy()
        hop_later.ttl = 63
        assert raw_ip(got)[28:] == bytes(hop_later)[:quoted_bytes], "the bytes that A sent, one hop later"


def test_t10_no_icmp_message_ends_a_connection(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", seq=0)
    c.come("SA", seq=0)
    sent = only(c.s.inside(tcp(CLIENT, SERVER, "A", seq=(ISS + 1) % MODULUS, ack=IRS + 1)))
    for kind, code in ((3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (4, 0), (5, 1), (11, 0), (12, 0)):
        c.s.outside(error(ROUTER, c.s.X, kind, code, raw_ip(sent)))
    c.s.advance(7_439)
    c.come("PA", b"data")
    c.out("A", ack=5)


def test_a_reset_without_a_connection_opens_no_mapping(make: MakeScenario, egress: str) -> None:
    """T2: nothing is let out for it, and nothing in."""
    s = make(egress)
    assert s.inside(tcp(CLIENT, SERVER, "R")) == []
    assert s.dropped == Drop.ALIAS_NO_STATE
    assert ends(only(s.inside(tcp((B, 5000), SERVER, "S"))))[0] == (s.X, 5000)
