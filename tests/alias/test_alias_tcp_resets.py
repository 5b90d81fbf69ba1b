"""RFC 7857 2.2 and 7.1: resets, their windows, strangers, and connections that are older than their link."""

from __future__ import annotations

import pytest

from alias.types import Egress
from tests.alias.nat import E, F, Nat, passed
from tests.alias.tcp_call import INSIDE_START, OUTSIDE_START, SYN_OPTIONS, Call, both_egresses
from wire.drop import Drop
from wire.units import address_int, seconds_ns

# RFC 7857 2.2: resets


@both_egresses
def test_a_reset_keeps_the_state_for_240_seconds_and_a_later_packet_revives_it(egress: Egress) -> None:
    """R3."""
    nat = Nat(egress)
    call = Call(nat).opened()
    passed(call.back("R"))
    assert call.state == "TRANS"
    nat.after(239)
    passed(call.back("A", b"data"))
    assert call.state == "EST"
    nat.after(7439)
    passed(call.back("R"))
    nat.after(241)
    assert call.back("A") is Drop.ALIAS_NO_LINK


def test_a_reset_from_inside_counts_too() -> None:
    """R3."""
    nat = Nat()
    call = Call(nat).opened()
    passed(call.out("RA"))
    assert call.state == "TRANS"
    nat.after(100)
    passed(call.out("R"))
    nat.after(141)
    assert call.back("A") is Drop.ALIAS_NO_LINK, "a second reset restarts nothing"


@pytest.mark.parametrize(
    ("offset", "state"),
    [
        (0, "TRANS"),
        (1, "TRANS"),
        (1024 << 7, "TRANS"),
        ((1024 << 7) + 1, "EST"),
        (-1, "EST"),
        (1 << 31, "EST"),
        (-(1 << 20), "EST"),
    ],
)
def test_a_reset_counts_only_in_the_window_that_the_inside_announced(offset: int, state: str) -> None:
    """R3a: outside of it the reset passes and changes neither state nor timer; the window scale is followed."""
    nat = Nat()
    call = Call(nat).opened()
    nat.after(7000)
    passed(call.back("R", seq=(call.received + offset) & 0xFFFFFFFF))
    assert call.state == state
    nat.after(239)
    passed(call.out("A"))
    nat.after(241)
    passed(call.back("A"))


def test_the_window_moves_with_the_acknowledgments_of_the_inside() -> None:
    """R3a: also round the end of the sequence numbers."""
    nat = Nat()
    call = Call(nat)
    call.received = 0xFFFFFF00
    call.opened()
    old = call.received
    passed(call.back("A", b"x" * 1000))
    call.received &= 0xFFFFFFFF
    passed(call.out("A"))
    passed(call.back("R", seq=old & 0xFFFFFFFF))
    assert call.state == "EST"
    passed(call.back("R"))
    assert call.state == "TRANS"


def test_without_agreement_of_both_sides_windows_are_not_scaled() -> None:
    """R3a, RFC 7323 2.2."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("S", options=SYN_OPTIONS))
    passed(call.back("SA"))
    passed(call.out("A"))
    passed(call.back("R", seq=call.received + 1025))
    assert call.state == "EST"
    passed(call.back("R", seq=call.received + 1024))
    assert call.state == "TRANS"


def test_a_refusal_counts_if_it_acknowledges_the_syn() -> None:
    """R3a: RFC 9293 3.10.7.3."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("S"))
    nat.after(100)
    passed(call.back("RA", seq=0, ack=INSIDE_START + 77))
    passed(call.back("R", seq=0))
    assert call.state == "INIT"
    passed(call.back("RA", seq=0, ack=INSIDE_START + 1))
    assert call.state == "TRANS"
    nat.after(239)
    passed(call.out("S", seq=INSIDE_START))
    assert call.state == "INIT"


def test_resets_are_judged_by_what_a_fast_path_has_told() -> None:
    """R3a."""
    nat = Nat()
    call = Call(nat).opened()
    link = nat.link()
    remote = {"remote": address_int(E), "remote_port": 80}
    far = (call.received + 10_000_000) & 0xFFFFFFFF
    passed(call.back("R", seq=far))
    assert call.state == "EST"
    nat.after(7000)
    nat.aliases.confirm(
        link, nat.now, outbound=True, packets=9, size_bytes=900, acknowledgment=far, window=1024, **remote
    )
    nat.after(7000)
    nat.aliases.confirm(link, nat.now, outbound=False, packets=9, size_bytes=900, **remote)
    nat.aliases.confirm(link, nat.now - 1, outbound=True, packets=9, size_bytes=900, **remote)
    assert link.expires_ns == nat.now + seconds_ns(7440)
    passed(call.back("R", seq=far))
    assert call.state == "TRANS"
    nat.aliases.confirm(link, nat.now, outbound=True, packets=1, size_bytes=9, remote=1, remote_port=1)
    assert call.state == "TRANS", "a remote without a session"


# RFC 7857 7.1, strangers, and connections that are older than their link


def test_a_reset_from_inside_opens_no_link() -> None:
    """R5."""
    nat = Nat()
    assert Call(nat).out("R") is Drop.ALIAS_NO_STATE
    assert Call(nat).out("RA") is Drop.ALIAS_NO_STATE
    assert nat.links() == []


def test_a_reset_that_answers_a_stranger_neither_makes_nor_refreshes_anything() -> None:
    """R5."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("S"))
    nat.at(200)
    stranger = Call(nat, remote=F)
    passed(stranger.back("S"))
    passed(stranger.out("RA"))
    assert call.state == "INIT"
    nat.at(241)
    assert stranger.back("S") is Drop.ALIAS_NO_LINK


def test_strangers_refresh_nothing_until_the_inside_answers() -> None:
    """R5, U8: the endpoint-independent filter lets them in, and that is all."""
    nat = Nat()
    passed(Call(nat).out("S"))
    stranger = Call(nat, remote=F)
    nat.at(200)
    for flags in ("S", "A", "FA", "PA"):
        passed(stranger.back(flags, seq=OUTSIDE_START))
    assert nat.link().state == "INIT"
    stranger.received = OUTSIDE_START + 1
    passed(stranger.out("SA"))
    assert nat.link().state == "INIT"
    assert nat.link().expires_ns == nat.now + seconds_ns(240)
    passed(stranger.back("S", seq=OUTSIDE_START))
    assert nat.link().state == "INIT"
    passed(stranger.back("A", b"data"))
    assert nat.link().state == "EST"


def test_a_connection_older_than_its_link_is_taken_up_in_the_middle() -> None:
    """T2: transitory until the outside has been heard."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("PA", b"data"))
    assert call.state == "TRANS"
    nat.after(200)
    passed(call.out("A"))
    assert call.state == "TRANS"
    nat.after(239)
    passed(call.back("A"))
    assert call.state == "EST"
    nat.after(7439)
    passed(call.back("A"))


def test_a_connection_taken_up_at_its_end_closes() -> None:
    """T2."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("FA"))
    assert call.state == "TRANS"
    passed(call.back("FA"))
    assert call.state == "both-FIN"
    other = Call(nat, remote=F)
    passed(other.out("A"))
    passed(other.out("FA"))
    passed(other.back("A"))
    assert nat.link().state == "out-FIN"


def test_a_dead_connection_taken_up_in_the_middle_is_ended_by_the_remotes_reset() -> None:
    """R3."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("A"))
    passed(call.back("R"))
    assert call.state == "TRANS"
    nat.after(241)
    assert nat.links() == []
