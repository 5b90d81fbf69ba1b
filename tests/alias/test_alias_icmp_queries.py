"""RFC 5508 REQ-1 and 2: ICMP queries. Errors are in test_alias_quote.py."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP

from alias.types import Egress
from tests.alias.nat import BOTH, A, B, E, F, Nat, passed
from wire import ipv4
from wire.drop import Drop

both_egresses = pytest.mark.parametrize("egress", BOTH, ids=lambda egress: egress.label)


def request(inside: str, identifier: int, remote: str = E, kind: int = 8) -> IP:
    return IP(src=inside, dst=remote) / ICMP(type=kind, id=identifier, seq=1) / b"ping"


def reply(nat: Nat, identifier: int, remote: str = E, kind: int = 0) -> IP:
    return IP(src=remote, dst=nat.x) / ICMP(type=kind, id=identifier, seq=1) / b"ping"


@both_egresses
@pytest.mark.parametrize(("asked", "answered"), [(8, 0), (13, 14), (15, 16), (17, 18)])
def test_a_query_leaves_and_its_reply_comes_back(egress: Egress, asked: int, answered: int) -> None:
    """I1: echo, timestamp, information, mask."""
    nat = Nat(egress)
    seen = passed(nat.out(request(A, 77, kind=asked)))
    assert (seen.src, seen[ICMP].id) == (nat.x, 77)
    other = passed(nat.out(request(B, 77, kind=asked)))[ICMP].id
    assert other != 77
    for identifier, inside in ((77, A), (other, B)):
        back = passed(nat.back(reply(nat, identifier, kind=answered)))
        assert (back.dst, back[ICMP].id, back[ICMP].type) == (inside, 77, answered)


@both_egresses
def test_the_identifier_does_not_depend_on_the_remote(egress: Egress) -> None:
    """I1a."""
    nat = Nat(egress)
    assert [passed(nat.out(request(A, 77, remote)))[ICMP].id for remote in (E, F)] == [77, 77]
    other = [passed(nat.out(request(B, 77, remote)))[ICMP].id for remote in (E, F)]
    assert other[0] == other[1] != 77


def test_identifier_0_is_preserved() -> None:
    """I1."""
    nat = Nat()
    assert passed(nat.out(request(A, 0)))[ICMP].id == 0
    assert passed(nat.back(reply(nat, 0))).dst == A


@both_egresses
def test_a_query_lives_for_60_seconds(egress: Egress) -> None:
    """I2, R9."""
    nat = Nat(egress)
    nat.out(request(A, 77))
    nat.at(59)
    passed(nat.back(reply(nat, 77)))
    nat.at(61)
    assert nat.back(reply(nat, 77)) is Drop.ALIAS_NO_LINK
    assert [t for t, _ in nat.ended] == [60]


def test_the_query_timer_restarts_with_requests_and_is_configurable() -> None:
    """I2."""
    nat = Nat(icmp_timeout_ns=90 * 10**9)
    nat.out(request(A, 77))
    nat.at(50)
    nat.out(request(A, 77))
    nat.at(139)
    passed(nat.back(reply(nat, 77)))
    nat.at(141)
    assert nat.back(reply(nat, 77)) is Drop.ALIAS_NO_LINK


def test_a_reply_from_inside_opens_nothing_and_refreshes_nothing() -> None:
    """I1, R5."""
    nat = Nat()
    assert nat.out(reply(nat, 77) / b"") is Drop.ALIAS_NO_STATE
    answer = IP(src=A, dst=E) / ICMP(type=0, id=77)
    assert nat.out(answer) is Drop.ALIAS_NO_STATE
    assert nat.links() == []
    nat.out(request(A, 77))
    nat.at(50)
    assert passed(nat.out(answer)).src == nat.x, "there is a link: it may pass"
    nat.at(61)
    assert nat.back(reply(nat, 77)) is Drop.ALIAS_NO_LINK


@pytest.mark.parametrize("kind", [1, 2, 6, 7, 9, 10, 19, 30, 40, 42, 43, 255])
def test_other_types_are_not_aliased(kind: int) -> None:
    """I11."""
    nat = Nat()
    nat.out(request(A, 77))
    link = nat.link()
    raw = bytearray(bytes(reply(nat, 77)))
    raw[20] = kind
    for direction, reason in ((nat.aliases.inbound, Drop.ICMP_TYPE), (nat.aliases.outbound, Drop.ALIAS_NO_STATE)):
        parsed = ipv4.parse(bytes(raw))
        assert isinstance(parsed, ipv4.Packet)
        assert direction(nat.egress, parsed, nat.now) is reason
    assert link.packets == 1
