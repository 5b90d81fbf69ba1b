"""The costs and gains of a shared address: limits, ports at rest, silence in the logs, static forwards. Rows C1, C3 to
C5, M1, M2 and R9 of the checklist, on both egresses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.load import load
from bridge.replay import run as replay
from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    HOST,
    IP,
    MAC_L,
    UDP,
    A,
    B,
    E,
    F,
    Out,
)
from tests.conformance.packets import echo, ends, error, only, raw_ip, tcp, udp, way
from wire import pcap
from wire.drop import Drop

C = "192.168.200.12"


def is_prohibited(out: Out, to: str) -> bool:
    """3/13 from the gateway's LAN address."""
    return (out.port, out.ip.src, out.ip.dst, raw_ip(out)[20:22]) == ("L", ADDRESS_L, to, b"\x03\x0d")


# Limits


def test_c1_a_host_at_its_limit_is_told_so_and_nobody_else_is(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nmax_links_per_host = 3\n")
    first = [udp((A, 5000), (E, 1)), tcp((A, 5000), (E, 1), "S"), echo((A, 5000), E)]  # of all protocols together
    for packet in first:
        assert only(s.inside(packet)).port == egress
    for packet in (udp((A, 5001), (E, 1)), tcp((A, 5001), (E, 1), "S"), echo((A, 5001), E)):
        refusal = only(s.inside(packet))
        assert is_prohibited(refusal, A)
        assert raw_ip(refusal)[28:] == bytes(packet)
        assert s.dropped == Drop.ALIAS_HOST_LIMIT
    for packet in first:
        assert only(s.inside(packet)).port == egress
    assert way(only(s.inside(udp((B, 5001), (E, 1))))) == (egress, (s.X, 5001), (E, 1))


def test_c1_the_limit_counts_both_egresses_and_the_host_behind_tun0_has_one_too(make: MakeScenario) -> None:
    s = make("O", "[alias]\nmax_links_per_host = 1\n")
    s.inside(udp((A, 5000), (E, 1)))
    assert is_prohibited(only(s.inside(udp((A, 5000), ("8.8.8.8", 1)))), A)
    assert only(s.inject("U", udp((HOST, 1), (E, 1)))).port == "O"
    refusal = only(s.inject("U", udp((HOST, 2), (E, 1))))
    assert (refusal.port, refusal.ip.dst, raw_ip(refusal)[20:22]) == ("U", HOST, b"\x03\x0d")
    assert only(s.inject("U", udp((HOST, 2), ("8.8.8.8", 1)))).port == "V", "no alias, no link, no limit"


def test_c1_a_place_is_free_again_when_a_link_ends(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nmax_links_per_host = 1\n")
    s.inside(udp((A, 5000), (E, 1)))
    s.advance(299)
    assert is_prohibited(only(s.inside(udp((A, 5001), (E, 1)))), A)
    s.advance(1)
    assert only(s.inside(udp((A, 5001), (E, 1)))).port == egress


def test_c4_a_full_table_refuses_new_links_and_keeps_the_old_ones(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nmax_links = 4\n")
    inside = [(host, port) for host in (A, B) for port in (5000, 5001)]
    names = [ends(only(s.inside(udp(endpoint, (E, 1)))))[0] for endpoint in inside]
    for host in (A, B, C):
        refusal = s.inside(udp((host, 7000), (E, 1)))
        assert s.dropped == Drop.ALIAS_TABLE_FULL
        if host != C:  # whose MAC address is not known
            assert is_prohibited(only(refusal), host)
    for endpoint, name in zip(inside, names, strict=True):
        assert way(only(s.outside(udp((F, 9), name)))) == ("L", (F, 9), endpoint)
        assert way(only(s.inside(udp(endpoint, (F, 9))))) == (egress, name, (F, 9))


def test_c4_one_link_is_a_table_too(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nmax_links = 1\nmax_links_per_host = 1\n")
    assert only(s.inside(udp((A, 5000), (E, 1)))).port == egress
    assert is_prohibited(only(s.inside(udp((B, 5000), (E, 1)))), B)
    s.advance(300)
    assert only(s.inside(udp((B, 5001), (E, 1)))).port == egress


def test_c4_exhausted_ports_refuse_new_links_and_keep_the_old_ones(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    names = {port: ends(only(s.inside(udp((A, port), (E, 1)))))[0] for port in range(1, 1024)}
    assert {name[1] for name in names.values()} == set(range(1, 1024))
    assert is_prohibited(only(s.inside(udp((B, 53), (E, 1)))), B)
    assert s.dropped == Drop.ALIAS_NO_PORT
    assert only(s.inside(udp((B, 1024), (E, 1)))).port == egress, "the other class is not touched"
    assert only(s.inside(tcp((B, 53), (E, 1), "S"))).port == egress, "nor is the other protocol"
    for port, name in names.items():
        assert way(only(s.outside(udp((F, 9), name)))) == ("L", (F, 9), (A, port)), "every one of the old flows"


def test_c4_refusals_are_told_at_most_ten_times_a_second_to_one_host(make: MakeScenario, egress: str) -> None:
    """I8: rate limited, as any ICMP error."""
    s = make(egress, "[alias]\nmax_links_per_host = 1\n")
    s.inside(udp((A, 5000), (E, 1)))
    told = [out for port in range(6000, 6030) for out in s.inside(udp((A, port), (E, 1)))]
    assert len(told) == 10
    assert all(is_prohibited(out, A) for out in told)
    assert s.count(Drop.ALIAS_HOST_LIMIT) == 30
    s.advance(1)
    assert is_prohibited(only(s.inside(udp((A, 6030), (E, 1)))), A)


def test_c4_a_hairpin_takes_a_place_as_well(make: MakeScenario, egress: str) -> None:
    s = make(egress, "[alias]\nmax_links = 1\n")
    s.inside(udp((A, 5000), (E, 1)))
    assert is_prohibited(only(s.inside(udp((B, 5000), (s.X, 5000)))), B)


# Ports at rest


@pytest.mark.parametrize("inside_port", [500, 5000])
def test_c3_a_freed_port_rests_for_two_minutes_before_another_host_has_it(
    make: MakeScenario, egress: str, inside_port: int
) -> None:
    s = make(egress)
    s.inside(udp((A, inside_port), (E, 1)))
    s.advance(300)
    assert ends(only(s.inside(udp((B, inside_port), (E, 1)))))[0] != (s.X, inside_port)
    s.advance(119.999_999_999)
    assert ends(only(s.inside(udp((C, inside_port), (E, 1)))))[0] != (s.X, inside_port)
    s.advance(0.000_000_001)
    assert ends(only(s.inside(udp(("192.168.200.13", inside_port), (E, 1)))))[0] == (s.X, inside_port)


def test_c3_the_endpoint_that_had_a_port_has_it_back_at_once(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(udp((A, 5000), (E, 1)))
    name = ends(only(s.inside(udp((B, 5000), (E, 1)))))[0]
    for _ in range(3):
        s.advance(300)
        assert ends(only(s.inside(udp((B, 5000), (E, 1)))))[0] == name


def test_c3_random_choices_leave_resting_ports_alone(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for port in range(1, 1024):
        s.inside(udp((A, port), (E, 1)))
    s.advance(300)
    assert is_prohibited(only(s.inside(udp((B, 53), (E, 1)))), B), "all of them rest"
    s.advance(120)
    assert ends(only(s.inside(udp((B, 53), (E, 1)))))[0] == (s.X, 53)


# Logs


def test_c5_logs_and_events_name_no_destination(
    make: MakeScenario, egress: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s = make(egress, "[alias]\nmax_links_per_host = 2\n")
    with caplog.at_level(logging.DEBUG):
        s.inside(udp((A, 5000), (E, 1)))
        s.inside(tcp((A, 5000), (E, 1), "S"))
        s.inside(udp((A, 5001), (E, 1)))
        s.outside(udp((F, 1), (s.X, 5000)))
        s.outside(udp((F, 1), (s.X, 5001)))
        s.advance(500)
    assert [record.getMessage() for record in caplog.records] == []
    told: list[str] = []
    config = load(s.path, "replay")
    with (tmp_path / "lan.pcap").open("wb") as file:
        writer = pcap.PcapWriter(file, pcap.LINK_ETHERNET)
        for at, port, frame in s.taken:
            if port == "L":
                writer.write(at, frame)
    given = [replay.Input("tap0", tmp_path / "lan.pcap")]
    replay.run(config, routes_from(config), given, tmp_path / "out", linger_ns=500 * 10**9, tell=told.append)
    events = [line for line in told if json.loads(line)["event"] not in ("rx", "tx")]
    assert {json.loads(line)["event"] for line in events} == {"link", "unlink", "drop"}
    assert not any(E in line or F in line for line in events)


# Static forwards

WEB = """
[[alias.forward]]
on = "{on}"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.10:80"
[[alias.forward]]
on = "{on}"
protocol = "udp"
outside_port = 53
inside = "192.168.200.10:5353"
"""


def web(egress: str) -> str:
    """A web server and a name server at A, open on the egress."""
    return WEB.format(on="tap1" if egress == "O" else "vpn")


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_m1_m2_strangers_reach_a_forward_and_its_answers_have_its_name(
    make: MakeScenario, egress: str, filtering: str
) -> None:
    s = make(egress, f'[alias]\nfiltering = "{filtering}"\n{web(egress)}')
    for stranger in ((E, 40_000), (F, 80)):
        assert way(only(s.outside(tcp(stranger, (s.X, 8080), "S", seq=7)))) == ("L", stranger, (A, 80))
        assert way(only(s.inside(tcp((A, 80), stranger, "SA", ack=8)))) == (egress, (s.X, 8080), stranger)
        assert way(only(s.outside(udp(stranger, (s.X, 53))))) == ("L", stranger, (A, 5353))
        assert way(only(s.inside(udp((A, 5353), stranger)))) == (egress, (s.X, 53), stranger)


def test_m1_what_the_inside_of_a_forward_sends_first_has_its_name_too(make: MakeScenario, egress: str) -> None:
    s = make(egress, web(egress))
    assert way(only(s.inside(tcp((A, 80), (E, 9), "S")))) == (egress, (s.X, 8080), (E, 9))
    assert way(only(s.inside(udp((A, 80), (E, 9))))) == (egress, (s.X, 80), (E, 9)), "TCP only"
    assert way(only(s.inside(tcp((A, 81), (E, 9), "S")))) == (egress, (s.X, 81), (E, 9))


def test_m1_a_forward_never_expires_and_needs_no_packet_to_begin(make: MakeScenario, egress: str) -> None:
    s = make(egress, web(egress))
    s.advance(100_000)
    assert way(only(s.outside(udp((E, 1), (s.X, 53))))) == ("L", (E, 1), (A, 5353))
    s.advance(100_000)
    assert way(only(s.outside(tcp((E, 1), (s.X, 8080), "R")))) == ("L", (E, 1), (A, 80))
    assert way(only(s.outside(tcp((E, 1), (s.X, 8080), "S")))) == ("L", (E, 1), (A, 80))


def test_m1_the_port_of_a_forward_is_given_to_nobody_else(make: MakeScenario, egress: str) -> None:
    s = make(egress, web(egress))
    assert ends(only(s.inside(tcp((B, 8080), (E, 1), "S"))))[0] != (s.X, 8080)
    assert ends(only(s.inside(tcp((A, 8080), (E, 1), "S"))))[0] != (s.X, 8080)
    assert ends(only(s.inside(udp((B, 8080), (E, 1)))))[0] == (s.X, 8080), "UDP has no such forward"


def test_m1_a_forward_opens_its_own_egress_and_port_only(make: MakeScenario) -> None:
    s = make("O", web("O"))
    assert s.inject("V", tcp(("8.8.8.8", 1), (ADDRESS_V, 8080), "S")) == []
    assert s.inject("O", tcp((E, 1), (ADDRESS_O, 80), "S")) == []
    assert s.inject("O", udp((E, 1), (ADDRESS_O, 8080))) == []
    assert ends(only(s.inside(tcp((A, 80), ("8.8.8.8", 1), "S"))))[0] == (ADDRESS_V, 80)


def test_m1_the_same_outside_port_may_lead_elsewhere_on_each_egress_and_protocol(make: MakeScenario) -> None:
    forwards = [("tap1", "tcp", A), ("vpn", "tcp", B), ("tap1", "udp", B), ("vpn", "udp", HOST)]
    toml = "".join(
        f'[[alias.forward]]\non = "{on}"\nprotocol = "{protocol}"\noutside_port = 7\ninside = "{inside}:{9}"\n'
        for on, protocol, inside in forwards
    )
    s = make("O", toml)
    remote = {"tap1": (E, 1), "vpn": ("8.8.8.8", 1)}
    for on, protocol, inside in forwards:
        letter, name = ("O", (ADDRESS_O, 7)) if on == "tap1" else ("V", (ADDRESS_V, 7))
        near = "U" if inside == HOST else "L"
        come, go = (
            (udp(remote[on], name), udp((inside, 9), remote[on]))
            if protocol == "udp"
            else (tcp(remote[on], name, "S"), tcp((inside, 9), remote[on], "SA"))
        )
        assert way(only(s.inject(letter, come))) == (near, remote[on], (inside, 9))
        assert way(only(s.inject(near, go))) == (letter, name, remote[on])


def test_m2_a_forward_to_the_host_works_from_both_sides(make: MakeScenario, egress: str) -> None:
    on = "tap1" if egress == "O" else "vpn"
    s = make(egress, f'[[alias.forward]]\non = "{on}"\nprotocol = "tcp"\noutside_port = 2222\ninside = "{HOST}:22"\n')
    assert way(only(s.outside(tcp((E, 9), (s.X, 2222), "S")))) == ("U", (E, 9), (HOST, 22))
    assert way(only(s.inject("U", tcp((HOST, 22), (E, 9), "SA")))) == (egress, (s.X, 2222), (E, 9))


def test_m2_errors_of_the_host_about_a_forward_in_the_tunnel_have_the_forwards_name(make: MakeScenario) -> None:
    s = make("V", f'[[alias.forward]]\non = "vpn"\nprotocol = "udp"\noutside_port = 2222\ninside = "{HOST}:22"\n')
    sent = udp((E, 9), (s.X, 2222))
    got = only(s.outside(sent))
    answer = only(s.inject("U", error(HOST, E, 3, 3, raw_ip(got))))
    assert (answer.port, answer.ip.src, answer.ip.dst) == ("V", s.X, E)
    sent.ttl = 63
    assert raw_ip(answer)[28:] == bytes(sent)
    # about what came to the host by its own name it speaks under its own name
    got = only(s.outside(udp((E, 9), (HOST, 23))))
    answer = only(s.inject("U", error(HOST, E, 3, 3, raw_ip(got))))
    assert (answer.port, answer.ip.src) == ("V", HOST)
    assert raw_ip(answer)[28:] == raw_ip(got)


def test_m1_a_forward_costs_no_place_in_the_table(make: MakeScenario, egress: str) -> None:
    s = make(egress, f"[alias]\nmax_links = 1\nmax_links_per_host = 1\n{web(egress)}")
    s.inside(udp((A, 5000), (E, 1)))
    assert way(only(s.outside(tcp((E, 9), (s.X, 8080), "S")))) == ("L", (E, 9), (A, 80))
    assert way(only(s.inside(tcp((A, 80), (E, 9), "SA")))) == (egress, (s.X, 8080), (E, 9))


def test_m1_fragments_and_errors_pass_a_forward(make: MakeScenario, egress: str) -> None:
    s = make(egress, web(egress))
    data = bytes(range(256)) * 8
    whole = bytes(udp((E, 9), (s.X, 53), data))[20:]
    head = {"src": E, "dst": s.X, "proto": 17, "id": 5}
    assert s.outside(IP(**head, frag=150) / whole[1200:]) == []
    outs = s.outside(IP(**head, flags="MF") / whole[:1200])
    assert [(out.port, out.ip.src, out.ip.dst, out.ip.frag) for out in outs] == [("L", E, A, 0), ("L", E, A, 150)]
    assert b"".join(raw_ip(out)[20:] for out in outs) == bytes(udp((E, 9), (A, 5353), data))[20:]
    sent = only(s.inside(udp((A, 5353), (E, 9))))
    got = only(s.outside(error("198.51.100.1", s.X, 11, 0, raw_ip(sent))))
    assert (got.port, got.ip.dst) == ("L", A)
    quoted = IP(raw_ip(got)[28:])
    assert (quoted.src, quoted[UDP].sport) == (A, 5353)


def test_m2_errors_about_packets_from_outside_speak_the_names_of_the_outside(make: MakeScenario, egress: str) -> None:
    """U12a: of a packet that goes no further than us its sender hears with the address that it knows."""
    s = make(egress, web(egress), replace=((f'mac = "{MAC_L}"', f'mac = "{MAC_L}"\nmtu = 1400'),))
    for sent, kind, rest in (
        (tcp((E, 9), (s.X, 8080), "S", ttl=1), b"\x0b\x00", 0),
        (udp((E, 9), (s.X, 53), bytes(1401 - 28), flags="DF"), b"\x03\x04", 1400),
    ):
        got = only(s.outside(sent))
        assert (got.port, got.ip.src, got.ip.dst, raw_ip(got)[20:22]) == (egress, s.X, E, kind)
        assert raw_ip(got)[24:28] == rest.to_bytes(4, "big")
        assert raw_ip(got)[28:] == bytes(sent)[: 576 - 28]


def test_m2_an_error_of_a_forwards_inside_has_its_outside_name(make: MakeScenario, egress: str) -> None:
    """I5: the quote, too."""
    s = make(egress, web(egress))
    sent = udp((E, 9), (s.X, 53))
    answer = only(s.inside(error(A, E, 3, 3, raw_ip(only(s.outside(sent))))))
    sent.ttl = 63
    assert (answer.port, answer.ip.src, raw_ip(answer)[28:]) == (egress, s.X, bytes(sent))


# ICMP queries


def test_r9_a_query_mapping_lives_for_a_minute_whatever_its_sessions_do(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(echo((A, 77), E))
    s.inside(echo((A, 77), F))
    assert way(only(s.outside(echo((E, 77), s.X, 0)))) == ("L", (E, 77), (A, 77))
    s.advance(59)
    for remote in (E, F):
        assert way(only(s.outside(echo((remote, 77), s.X, 0)))) == ("L", (remote, 77), (A, 77))
    s.advance(1)
    assert s.outside(echo((F, 77), s.X, 0)) == []
