"""The client from INIT to BOUND: questions, offers, answers. Rows D1 to D4, D8, D11, D13, D14."""

from __future__ import annotations

from itertools import pairwise

import pytest
from dhcp_bench import ADDRESS, MAC, OTHER_SERVER, SERVER, Bench, Options, granted, packet_of, reply

from dhcp.effects import LeaseChanged
from dhcp.settings import ClientSettings, LeaseLimits
from wire.units import address_int

DISCOVER = "discover to all from 0.0.0.0"
REQUEST = f"request to all from 0.0.0.0 address={ADDRESS} server={SERVER}"
BOUND = [f"assume {ADDRESS}/24 by {SERVER}", "remember", f"lease bound {ADDRESS}"]
UNEXPECTED, NOT_OURS = "dropped: dhcp.unexpected", "dropped: dhcp.not_ours"
MALFORMED, REFUSED = "dropped: dhcp.malformed", "dropped: dhcp.refused"


def test_d1_four_messages_make_a_lease() -> None:
    bench = Bench()
    assert bench.client.state == "init"
    assert bench.starts() == [DISCOVER]
    assert bench.client.state == "selecting"
    assert bench.answers("offer", t=0.1) == [REQUEST]
    assert bench.client.state == "requesting"
    assert bench.answers("ack", t=0.2) == BOUND
    assert bench.client.state == "bound"
    assert bench.sent[0].xid == bench.sent[1].xid
    assert bench.client.answers == 1


def test_d2_discover_is_as_rfc_2131_wants_it() -> None:
    bench = Bench()
    bench.starts()
    (sent,) = bench.sent
    assert (sent.bootp.op, sent.bootp.htype, sent.bootp.hlen, int(sent.bootp.flags)) == (1, 1, 6, 0)
    assert (bytes(sent.bootp.chaddr[:6]), sent.size) == (MAC, 300)
    assert sent.named["param_req_list"] == [1, 3, 6, 15, 26, 121]
    assert sent.named["max_dhcp_size"] == 1472
    assert set(sent.named) == {"message-type", "max_dhcp_size", "param_req_list"}, "nothing else tells who we are"


@pytest.mark.parametrize(("mtu", "told"), [(576, 576), (1400, 1372), (1500, 1472), (9000, 1472)])
def test_d2_option_57_asks_for_messages_that_need_no_fragments(mtu: int, told: int) -> None:
    bench = Bench(ClientSettings(MAC, limits=LeaseLimits(mtu_bytes=mtu)))
    bench.starts()
    assert bench.sent[0].named["max_dhcp_size"] == told


def test_d2_what_is_configured_is_sent_and_the_client_identifier_in_every_message() -> None:
    bench = Bench(ClientSettings(MAC, b"gw", b"\x00me", b"vendor", ((77, b"\x0a\x0b"),)))
    bench.bound()
    bench.runs_until(1800)
    bench.does("release", 1801)
    for sent in bench.sent:
        assert sent.named["client_id"] == b"\x00me", sent.kind
    for sent in bench.sent[:3]:
        assert (sent.named["hostname"], sent.named["vendor_class_id"]) == (b"gw", b"vendor")
        assert b"\x4d\x02\x0a\x0b" in bytes(sent.bootp)
    assert set(bench.sent[3].named) == {"message-type", "server_id", "client_id"}


def test_d2_each_exchange_has_its_own_xid_whatever_the_timing_was() -> None:
    quiet, slow = Bench(seed=5), Bench(seed=5)
    quiet.bound()
    slow.starts()
    slow.runs_until(500)  # nobody answers for long: the intervals draw random numbers
    slow.answers("offer")
    slow.answers("ack")
    quiet.runs_until(2000)
    slow.runs_until(2900)
    assert [quiet.sent[0].xid, quiet.sent[-1].xid] == [slow.sent[0].xid, slow.sent[-1].xid]
    assert quiet.sent[0].xid != quiet.sent[-1].xid
    assert Bench(seed=6).bound().sent[0].xid != quiet.sent[0].xid


@pytest.mark.parametrize("seed", range(10))
def test_d3_discover_is_repeated_after_4_8_16_32_64_seconds_give_or_take_one(seed: int) -> None:
    bench = Bench(seed=seed)
    assert bench.starts(100) == [DISCOVER]
    told = bench.runs_until(700)
    assert {word for _, word in told} == {DISCOVER}
    gaps = [after - before for before, after in pairwise([100.0, *(t for t, _ in told)])]
    for gap, wanted in zip(gaps, [4, 8, 16, 32, 64, 64, 64, 64, 64, 64], strict=False):
        assert wanted - 1 <= gap <= wanted + 1
    assert len({sent.xid for sent in bench.sent}) == 1
    assert [sent.bootp.secs for sent in bench.sent] == [int(t - 100) for t in [100.0, *(t for t, _ in told)]]


def test_d3_a_request_is_sent_five_times_in_60_seconds_and_then_the_search_begins_anew() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    told = bench.runs_until(130)
    assert [word for _, word in told[:6]] == [REQUEST] * 4 + [DISCOVER, DISCOVER]
    assert bench.sent[1].xid == bench.sent[5].xid != bench.sent[6].xid
    assert told[4][0] - told[3][0] == pytest.approx(64, abs=1)


def test_d14_a_server_that_went_silent_is_asked_only_where_no_other_offers() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    bench.runs_until(128)
    assert bench.client.state == "selecting"
    assert bench.answers("offer") == [], "the silent one waits"
    assert bench.answers("offer", address="192.168.1.60", server=OTHER_SERVER)[0].endswith(f"server={OTHER_SERVER}")


def test_d14_a_server_that_went_silent_is_asked_again_at_the_next_question() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    bench.runs_until(128)
    bench.answers("offer")
    due = bench.client.next_deadline()
    assert due is not None
    assert [word for _, word in bench.runs_until(due / 1e9)] == [REQUEST]


def test_d14_the_first_acceptable_offer_is_taken_and_other_servers_change_nothing() -> None:
    bench = Bench()
    bench.starts()
    assert bench.answers("offer") == [REQUEST]
    xid = bench.sent[-1].xid
    for kind in ("offer", "ack", "nak"):
        assert bench.hears(reply(kind, xid, granted(), server=OTHER_SERVER)) == [UNEXPECTED]
    assert bench.client.state == "requesting"
    assert bench.answers("ack") == BOUND
    assert bench.hears(reply("nak", xid, server=OTHER_SERVER)) == [UNEXPECTED]
    assert bench.client.state == "bound"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"xid": 1}, UNEXPECTED),
        ({"mac": b"\x02\0\0\0\0\x09"}, NOT_OURS),
        ({"op": 1}, NOT_OURS),
        ({"server": None}, MALFORMED),
        ({"server": "0.0.0.0"}, MALFORMED),
    ],
)
@pytest.mark.parametrize("kind", ["offer", "ack", "nak"])
def test_d8_d18_messages_for_others_and_malformed_ones_change_nothing(
    kind: str, change: dict[str, object], verdict: str
) -> None:
    bench = Bench()
    bench.starts()
    if kind != "offer":
        bench.answers("offer")
    state = bench.client.state
    arguments = {"xid": bench.sent[-1].xid} | change
    xid = arguments.pop("xid")
    assert bench.hears(reply(kind, xid, granted(), **arguments)) == [verdict]  # type: ignore[arg-type]  # by case
    assert bench.client.state == state


def test_d8_messages_that_the_state_does_not_wait_for_change_nothing() -> None:
    bench = Bench()
    bench.starts()
    assert bench.answers("ack") == [UNEXPECTED]
    assert bench.answers("nak") == [UNEXPECTED]
    assert bench.answers("discover") == [UNEXPECTED]
    bench.answers("offer")
    assert bench.answers("offer") == [UNEXPECTED]
    bench.answers("ack")
    assert bench.answers("ack") == [UNEXPECTED], "a late duplicate"
    assert bench.answers("nak") == [UNEXPECTED]


@pytest.mark.parametrize("xid", [0, 7])
def test_d16_forcerenew_without_authentication_is_ignored(xid: int) -> None:
    bench = Bench().bound()
    deadline = bench.client.next_deadline()
    assert bench.hears(reply("forcerenew", xid)) == ["dropped: dhcp.forcerenew"]
    assert (bench.client.state, bench.client.next_deadline()) == ("bound", deadline)


def test_d2_an_answer_that_names_another_client_identifier_is_ignored() -> None:
    bench = Bench(ClientSettings(MAC, client_id=b"me"))
    bench.starts()
    assert bench.answers("offer", [*granted(), ("client_id", b"you")]) == [NOT_OURS]
    assert bench.answers("offer", [*granted(), ("client_id", b"me")]) == [REQUEST]
    assert bench.answers("ack", granted()) == BOUND, "RFC 6842: older servers leave it out"


# Leases that the gateway cannot live with

OVERLAPPING = "192.168.200.77"
BAD = [
    (granted(router="192.168.200.1"), OVERLAPPING),
    (granted(router="10.9.9.1"), ADDRESS),
    ([("subnet_mask", "255.255.255.0")], ADDRESS),
]


@pytest.mark.parametrize(("options", "address"), BAD)
def test_u7_d13_an_offer_that_is_refused_is_told_once_and_not_requested(options: Options, address: str) -> None:
    bench = Bench()
    bench.starts()
    assert bench.answers("offer", options, address=address) == [REFUSED, f"lease refused {address}"]
    assert bench.answers("offer", options, address=address) == [REFUSED]
    assert bench.client.state == "selecting"
    assert bench.answers("offer", granted()) == [REQUEST], "the next offer may be better"


def test_u7_d13_a_lease_that_overlaps_is_given_back_and_asked_for_again_after_ten_seconds() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    assert bench.answers("ack", granted(router="192.168.200.1"), t=1, address=OVERLAPPING) == [
        REFUSED,
        f"lease refused {OVERLAPPING}",
        f"decline to all from 0.0.0.0 address={OVERLAPPING} server={SERVER}",
        "forget",
    ]
    assert (bench.client.state, bench.client.lease) == ("init", None)
    assert bench.runs_until(10.9) == []
    assert bench.runs_until(11) == [(11.0, DISCOVER)]


def test_d11_a_lease_without_a_time_is_refused_and_not_declined() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    options: Options = [("subnet_mask", "255.255.255.0")]
    assert bench.answers("ack", options, t=1) == [REFUSED, f"lease refused {ADDRESS}", "forget"]
    assert bench.runs_until(11) == [(11.0, DISCOVER)]


def test_d6_a_nak_begins_anew_at_once_and_further_ones_after_a_pause_that_doubles() -> None:
    bench = Bench()
    at, pauses = 0.0, []
    bench.starts()
    for _ in range(9):
        bench.answers("offer", t=at)
        told = bench.answers("nak", t=at)
        assert told[0] == f"lease nak {ADDRESS}"
        due = bench.client.next_deadline()
        assert due is not None
        pauses.append(0.0 if told[1:] == [DISCOVER] else due / 1e9 - at)
        at += pauses[-1]
        bench.runs_until(at)
        assert bench.client.state == "selecting"
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, 64]


def test_d6_what_the_server_says_with_a_nak_is_told() -> None:
    bench = Bench()
    bench.starts()
    bench.answers("offer")
    data = reply("nak", bench.sent[-1].xid, [("error_message", b"not here")])
    told = bench.client.receive(packet_of(data), 0)[0]
    assert told == LeaseChanged("nak", address_int(ADDRESS), "not here")


def test_a_client_says_nothing_before_it_is_started() -> None:
    bench = Bench()
    assert bench.client.next_deadline() is None
    assert bench.hears(reply("offer", 0, granted())) == [UNEXPECTED]
    assert bench.does("reattach", 1) == []
    assert bench.sent == []
