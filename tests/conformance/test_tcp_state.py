"""The gateway's view of a TCP connection (RFC 7857 2 and 7), on both egresses. Rows R1, R3, R3a and R5."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.connection import CLIENT, Connection
from tests.conformance.harness import A, F
from tests.conformance.packets import error, only, raw_ip, tcp, way


@pytest.mark.parametrize(
    "story",
    [
        "out S INIT, come SA EST, out A EST, out FA out-FIN, come A out-FIN, come FA both-FIN, out A both-FIN",
        "out S INIT, come S EST, come FA in-FIN, out A in-FIN, out FA both-FIN, come A both-FIN, out S INIT",
        "out S INIT, come SA EST, come RA TRANS, out A EST",
        "out S INIT, come SA EST, out RA TRANS, come A EST",
        "out S INIT, come RA TRANS, out S INIT, come SA EST",
        "out A TRANS, come A EST",
    ],
    ids=["closed inside first", "simultaneous, closed outside first", "reset in", "reset out", "refused", "picked up"],
)
def test_r1_the_state_after_each_packet(make: MakeScenario, egress: str, story: str) -> None:
    c = Connection(make(egress))
    for step in story.split(", "):
        direction, flags, state = step.split()
        getattr(c, direction)(flags, seq=0 if "S" in flags else 1)
        assert c.state == state, step


def test_r1_the_end_of_one_connection_does_not_end_the_other_ones_of_its_mapping(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    one, other = Connection(s), Connection(s, outside=(F, 80))
    one.open()
    other.open()
    one.out("FA")
    one.come("FA", ack=2)
    other.come("RA")
    s.advance(100)
    other.come("A", b"not so")
    s.advance(7_439)
    other.come("A", b"alive", seq=7)
    assert other.state == "EST"


def test_r3_a_reset_passes_and_leaves_four_minutes(make: MakeScenario, egress: str) -> None:
    for side in ("come", "out"):
        c = Connection(make(egress))
        c.open()
        getattr(c, side)("R")
        c.s.advance(239)
        c.out("A", b"revived")
        c.s.advance(7_439)
        c.come("A", ack=8)
        c = Connection(make(egress))
        c.open()
        getattr(c, side)("R")
        c.s.advance(240)
        c.gone()


def test_r3_further_resets_do_not_prolong_the_four_minutes(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    c.come("R")
    c.s.advance(200)
    c.come("R")
    c.out("R")
    c.s.advance(40)
    c.gone()


@pytest.mark.parametrize("offset", [-1, -1000, 8192 + 1, 100_000, 1 << 31])
def test_r3a_a_reset_outside_of_the_window_changes_no_timer(make: MakeScenario, egress: str, offset: int) -> None:
    c = Connection(make(egress))
    c.open()  # A's window is 8,192 bytes
    c.come("R", seq=1 + offset)
    assert c.state == "EST"
    c.s.advance(7_439)
    c.come("A", b"still here")


@pytest.mark.parametrize("offset", [0, 1, 4096, 8191])
def test_r3a_a_reset_inside_of_the_window_counts(make: MakeScenario, egress: str, offset: int) -> None:
    c = Connection(make(egress))
    c.open()
    c.come("R", seq=1 + offset)
    assert c.state == "TRANS"
    c.s.advance(240)
    c.gone()


def test_r3a_the_window_is_read_with_its_scale(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", seq=0, options=[("WScale", 3)])
    c.come("SA", seq=0, options=[("WScale", 0)])
    c.out("A")  # 8,192 << 3
    c.come("R", seq=1 + 8192 * 8 + 1)
    assert c.state == "EST"
    c.come("R", seq=8192 * 8)
    assert c.state == "TRANS"


def test_r3a_a_refusal_that_does_not_acknowledge_the_syn_changes_no_timer(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", seq=0)
    c.s.advance(200)
    c.come("RA", seq=0, ack=77)
    c.come("R", seq=0)
    c.s.advance(40)
    c.gone()


def test_r5_a_reset_that_answers_a_stranger_does_not_keep_the_mapping(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.out("S", seq=0)
    c.s.advance(200)
    assert way(only(c.s.outside(tcp((F, 7), c.name, "S")))) == ("L", (F, 7), CLIENT)
    assert way(only(c.s.inside(tcp(CLIENT, (F, 7), "RA", ack=1)))) == (egress, c.name, (F, 7))
    c.s.advance(40)
    c.gone()


def test_r5_an_error_about_a_connection_does_not_keep_it(make: MakeScenario, egress: str) -> None:
    c = Connection(make(egress))
    c.open()
    c.s.advance(7_000)
    knock = tcp((F, 7), c.name, "S")
    got = only(c.s.outside(knock))
    answer = only(c.s.inside(error(A, F, 3, 13, raw_ip(got))))
    assert (answer.port, answer.ip.src, answer.ip.dst) == (egress, c.s.X, F)
    one_hop_on = knock.copy()
    one_hop_on.ttl = 63
    assert raw_ip(answer)[28:] == bytes(one_hop_on)
    c.s.advance(440)
    c.gone()
