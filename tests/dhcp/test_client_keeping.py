"""The client that has a lease: renewing, losing, giving back, and asking again. Rows D4 to D7, D9 to D12, D14, D15."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dhcp_bench import ADDRESS, MAC, OTHER_SERVER, SERVER, SETTINGS, Bench, Options, granted, reply

from dhcp.lease import Lease
from dhcp.settings import ClientSettings, LeaseLimits, Subnet
from wire.units import address_int

DISCOVER = "discover to all from 0.0.0.0"
RENEWAL = f"request to {SERVER} from {ADDRESS} ciaddr={ADDRESS}"
REBINDING = f"request to all from {ADDRESS} ciaddr={ADDRESS}"
KNOWN = f"request to all from 0.0.0.0 address={ADDRESS}"
ASSUME = f"assume {ADDRESS}/24 by {SERVER}"
RENEWED = [ASSUME, "remember", f"lease renewed {ADDRESS}"]
BOUND = [ASSUME, "remember", f"lease bound {ADDRESS}"]
LOST_BY_NAK = ["vacate", "forget", f"lease nak {ADDRESS}", DISCOVER]
OTHER = "192.168.1.99"
REMEMBERED = Lease(address_int(ADDRESS), 24, address_int(SERVER), address_int(SERVER), 3600, 1800, 3150)


# Timers


def test_d4_d5_a_lease_of_3600_s_is_renewed_from_1800_and_rebound_from_3150_and_ends_at_3600() -> None:
    bench = Bench().bound()
    told = bench.runs_until(3600)
    assert told[0] == (1800, RENEWAL)
    assert [word for t, word in told if t < 3150] == [RENEWAL] * len([t for t, _ in told if t < 3150])
    assert (3150, REBINDING) in told
    assert told[-4:] == [(3600, "vacate"), (3600, "forget"), (3600, f"lease expired {ADDRESS}"), (3600, DISCOVER)]
    assert (bench.client.state, bench.client.lease) == ("selecting", None)


def test_d5_questions_are_half_of_the_remaining_time_apart_and_at_least_60_s() -> None:
    bench = Bench().bound()
    told = [t for t, word in bench.runs_until(3599) if "request" in word]
    assert told == [1800, 2475, 2812.5, 2981.25, 3065.625, 3125.625, 3150, 3375, 3487.5, 3547.5]


def test_d5_an_answer_to_a_renewal_begins_a_new_lease_from_the_question() -> None:
    bench = Bench().bound()
    assert bench.runs_until(1800) == [(1800, RENEWAL)]
    assert bench.client.state == "renewing"
    assert bench.answers("ack", t=1801) == RENEWED
    assert bench.client.state == "bound"
    assert bench.runs_until(3599) == []
    assert bench.runs_until(3600) == [(3600, RENEWAL)]


def test_d5_a_lease_that_a_repeat_renews_runs_from_the_repeat() -> None:
    bench = Bench().bound()
    bench.runs_until(3065.625)
    asked = bench.sent[-5:]
    assert len({question.xid for question in asked}) == 5, "an answer names its question"
    assert [question.bootp.secs for question in asked] == [0, 675, 1012, 1181, 1265]
    assert bench.hears(reply("ack", asked[-2].xid, granted()), 3065.7) == ["dropped: dhcp.unexpected"]
    assert bench.answers("ack", t=3065.8) == RENEWED
    assert bench.runs_until(3065.625 + 1800) == [(3065.625 + 1800, RENEWAL)]
    assert bench.runs_until(3065.625 + 3599)[-1][1] != f"lease expired {ADDRESS}"


def test_d11_a_silent_server_that_limits_an_infinite_lease_after_hours_gives_a_whole_lease() -> None:
    bench = Bench().bound(granted(lease=0xFFFFFFFF))
    assert bench.does("renew", 10) == [RENEWAL]
    assert bench.runs_until(6 * 3600)[-1] == (6 * 3600 - 50, RENEWAL)
    assert bench.answers("ack", t=6 * 3600) == RENEWED
    assert bench.runs_until(6 * 3600 - 50 + 1799) == []
    assert bench.client.lease is not None


def test_d5_any_server_may_answer_a_rebinding() -> None:
    bench = Bench().bound()
    bench.runs_until(3150)
    assert bench.client.state == "rebinding"
    assert bench.answers("ack", server=OTHER_SERVER, t=3151) == RENEWED
    bench.runs_until(3150 + 1800)
    assert bench.sent[-1].to == OTHER_SERVER


def test_d5_only_the_server_of_the_lease_may_answer_a_renewal() -> None:
    bench = Bench().bound()
    bench.runs_until(1800)
    assert bench.answers("ack", server=OTHER_SERVER) == ["dropped: dhcp.unexpected"]
    assert bench.answers("nak", server=OTHER_SERVER) == ["dropped: dhcp.unexpected"]
    assert bench.answers("ack") == RENEWED


def test_d5_a_late_tick_asks_all_servers_at_once_and_a_later_one_lets_go() -> None:
    bench = Bench().bound()
    assert bench.does("tick", 3200) == [REBINDING]
    assert bench.does("tick", 5000) == ["vacate", "forget", f"lease expired {ADDRESS}", DISCOVER]


def test_d11_an_infinite_lease_has_no_timers() -> None:
    bench = Bench().bound(granted(lease=0xFFFFFFFF))
    assert bench.client.next_deadline() is None
    assert (bench.client.renew_ns, bench.client.rebind_ns, bench.client.expiry_ns) == (None, None, None)
    assert bench.does("renew", 10) == [RENEWAL]
    assert bench.answers("ack", granted(lease=60)) == RENEWED
    assert bench.runs_until(40) == [(40, RENEWAL)]


def test_d11_a_renewal_without_a_lease_time_does_not_end_the_lease() -> None:
    bench = Bench().bound()
    bench.runs_until(1800)
    options: Options = [("subnet_mask", "255.255.255.0")]
    assert bench.answers("ack", options) == ["dropped: dhcp.refused", f"lease refused {ADDRESS}"]
    assert (bench.client.state, bench.client.lease is None) == ("renewing", False)


def test_d13_a_renewal_that_overlaps_gives_the_address_back() -> None:
    bench = Bench().bound()
    bench.runs_until(1800)
    assert bench.answers("ack", granted(mask="255.255.0.0")) == [
        "dropped: dhcp.refused",
        f"lease refused {ADDRESS}",
        f"decline to all from 0.0.0.0 address={ADDRESS} server={SERVER}",
        "vacate",
        "forget",
    ]


# Changes


def test_d6_a_nak_of_the_server_drops_the_address() -> None:
    bench = Bench().bound()
    bench.runs_until(1800)
    assert bench.answers("nak", t=1801) == LOST_BY_NAK
    assert bench.client.answers == 2


def test_d9_a_renewal_may_bring_another_address_and_another_gateway() -> None:
    bench = Bench().bound()
    bench.runs_until(1800)
    assert bench.answers("ack", granted(router="192.168.1.9"))[0] == f"assume {ADDRESS}/24 by 192.168.1.9"
    bench.does("renew", 1900)
    assert bench.answers("ack", address=OTHER) == [f"assume {OTHER}/24 by {SERVER}", "remember", f"lease bound {OTHER}"]


def test_d14_a_strangers_nak_to_all_servers_waits_a_second_for_the_servers_own_answer() -> None:
    bench = Bench().bound()
    bench.runs_until(3150)
    assert bench.answers("nak", server=OTHER_SERVER, t=3150.1) == []
    assert bench.answers("nak", server=OTHER_SERVER, t=3150.2) == []
    assert bench.answers("ack", t=3150.9) == RENEWED
    assert bench.runs_until(3200) == []


def test_d14_a_strangers_nak_counts_where_the_server_itself_is_silent() -> None:
    bench = Bench().bound()
    bench.runs_until(3150)
    bench.answers("nak", server=OTHER_SERVER, t=3150.1)
    told = bench.runs_until(3151.2)
    assert [word for _, word in told] == LOST_BY_NAK
    assert told[0][0] == pytest.approx(3151.1)


def test_d7_an_address_that_another_host_uses_is_declined_and_the_search_waits_ten_seconds() -> None:
    bench = Bench().bound()
    assert bench.does("conflict", 3) == [
        f"decline to all from 0.0.0.0 address={ADDRESS} server={SERVER}",
        "vacate",
        "forget",
        f"lease declined {ADDRESS}",
    ]
    assert set(bench.sent[-1].named) == {"message-type", "requested_addr", "server_id"}
    assert bench.client.state == "init"
    assert bench.runs_until(12.9) == []
    assert bench.runs_until(13) == [(13, DISCOVER)]


def test_d7_a_conflict_after_the_probes_is_for_the_port_to_defend() -> None:
    bench = Bench().bound()
    assert bench.does("conflict", 7) == []
    assert bench.client.state == "bound"
    bench.runs_until(1800)
    bench.answers("ack")
    assert bench.does("conflict", 1801) == [], "a renewed address is not probed again"


# The operator


def test_d10_release_goes_to_the_server_and_nothing_is_asked_before_renew() -> None:
    bench = Bench().bound()
    assert bench.does("release", 100) == [
        f"release to {SERVER} from {ADDRESS} ciaddr={ADDRESS} server={SERVER}",
        "vacate",
        "forget",
        f"lease released {ADDRESS}",
    ]
    assert (bench.client.state, bench.client.lease, bench.client.next_deadline()) == ("init", None, None)
    assert bench.does("reattach", 150) == []
    assert bench.does("release", 151) == ["forget"]
    assert bench.does("renew", 200) == [DISCOVER]


def test_d10_a_reload_ends_the_rest_after_a_release() -> None:
    bench = Bench().bound()
    bench.does("release", 100)
    assert bench.does("reconfigure", 101, SETTINGS) == [DISCOVER]


def test_renew_asks_the_server_of_the_lease_at_once() -> None:
    bench = Bench().bound()
    assert bench.does("renew", 10) == [RENEWAL]
    assert bench.answers("ack", t=11) == RENEWED
    assert bench.client.answers == 2
    assert bench.runs_until(1809) == []


@pytest.mark.parametrize("t", [2000, 3200])
def test_renew_asks_again_where_a_question_is_open(t: float) -> None:
    bench = Bench().bound()
    bench.runs_until(t)
    assert bench.does("renew", t) == [RENEWAL if t < 3150 else REBINDING]
    assert bench.client.state == ("renewing" if t < 3150 else "rebinding")


def test_renew_repeats_discover_and_ends_a_pause() -> None:
    bench = Bench()
    bench.starts()
    assert bench.does("renew", 1) == [DISCOVER]
    bench = Bench().bound()
    bench.does("conflict", 1)
    assert bench.does("renew", 2) == [DISCOVER]


def test_u7_a_reload_that_takes_the_leases_network_gives_it_back() -> None:
    bench = Bench().bound()
    limits = LeaseLimits(taken=(Subnet("tap0", address_int("192.168.0.0"), 16),))
    assert bench.does("reconfigure", 10, replace(SETTINGS, limits=limits)) == [
        f"release to {SERVER} from {ADDRESS} ciaddr={ADDRESS} server={SERVER}",
        "vacate",
        "forget",
        f"lease refused {ADDRESS}",
        DISCOVER,
    ]


def test_a_reload_without_news_asks_nothing_and_one_with_news_asks_at_once() -> None:
    bench = Bench().bound()
    assert bench.does("reconfigure", 10, SETTINGS) == []
    assert bench.does("reconfigure", 11, replace(SETTINGS, hostname=b"new")) == [KNOWN]
    assert bench.leases == [bench.client.lease], "the address stays meanwhile"
    assert bench.answers("ack", t=12) == RENEWED


# Asking again for a known address


def test_d12_a_remembered_lease_is_asked_for_at_the_start_and_used_with_the_ack() -> None:
    bench = Bench()
    assert bench.starts(5, REMEMBERED) == [KNOWN]
    assert (bench.client.state, bench.client.lease) == ("rebooting", None)
    assert bench.answers("ack", t=5.1) == BOUND
    assert bench.runs_until(1804) == []
    assert bench.runs_until(1805) == [(1805, RENEWAL)]


def test_d12_a_nak_leads_to_discover() -> None:
    bench = Bench()
    bench.starts(5, REMEMBERED)
    assert bench.answers("nak", t=5.1) == ["forget", f"lease nak {ADDRESS}", DISCOVER]


def test_d12_a_nak_of_another_network_s_server_leads_to_discover_after_a_second() -> None:
    bench = Bench()
    bench.starts(5, REMEMBERED)
    assert bench.answers("nak", t=5.1, server="10.0.0.1") == []
    assert [word for _, word in bench.runs_until(6.2)] == ["forget", f"lease nak {ADDRESS}", DISCOVER]


def test_d12_where_nobody_answers_a_remembered_lease_gives_way_to_discover() -> None:
    bench = Bench()
    bench.starts(5, REMEMBERED)
    told = bench.runs_until(14)
    assert [word for _, word in told] == [KNOWN, DISCOVER]
    assert told[0][0] == pytest.approx(9, abs=1)
    assert told[1][0] == 13


def test_d12_a_remembered_lease_that_overlaps_now_is_not_asked_for() -> None:
    settings = ClientSettings(MAC, limits=LeaseLimits(taken=(Subnet("tap0", address_int("192.168.0.0"), 16),)))
    assert Bench(settings).starts(5, REMEMBERED) == [DISCOVER]


def test_d15_when_the_link_comes_back_the_address_is_asked_for_at_once_and_stays() -> None:
    bench = Bench().bound()
    assert bench.does("reattach", 100) == [KNOWN]
    assert bench.client.state == "rebooting"
    assert bench.client.lease is not None
    assert bench.answers("ack", t=100.1) == RENEWED


def test_d15_in_another_network_the_address_goes_with_the_nak() -> None:
    bench = Bench().bound()
    bench.does("reattach", 100)
    assert bench.answers("nak", t=100.1) == LOST_BY_NAK


def test_d15_a_new_router_that_answers_discover_alone_replaces_the_lease() -> None:
    bench = Bench().bound()
    bench.does("reattach", 100)
    assert [word for _, word in bench.runs_until(108)] == [KNOWN, DISCOVER]
    assert bench.client.lease is not None, "nobody said no"
    options = granted(router="10.0.0.1")
    bench.answers("offer", options, server="10.0.0.1", address="10.0.0.5")
    assert bench.answers("ack", options, server="10.0.0.1", address="10.0.0.5")[0] == "assume 10.0.0.5/24 by 10.0.0.1"


def test_d15_a_lease_still_ends_while_a_server_is_looked_for() -> None:
    bench = Bench().bound()
    bench.does("reattach", 3500)
    told = bench.runs_until(3700)
    assert [(t, word) for t, word in told if "discover" not in word and word != KNOWN] == [
        (3600, "vacate"),
        (3600, "forget"),
        (3600, f"lease expired {ADDRESS}"),
    ]
    assert bench.client.state == "selecting"


def test_d15_a_nak_of_an_offer_does_not_end_the_lease_in_use() -> None:
    bench = Bench().bound()
    bench.does("reattach", 100)
    bench.runs_until(108)
    bench.answers("offer", granted(), server=OTHER_SERVER, address=OTHER)
    assert bench.answers("nak", server=OTHER_SERVER) == [f"lease nak {OTHER}", DISCOVER]
    assert bench.client.lease is not None


def test_d15_while_no_lease_is_there_the_search_begins_anew_at_once() -> None:
    bench = Bench()
    bench.starts()
    bench.runs_until(60)
    assert bench.does("reattach", 60) == [DISCOVER]
    bench.answers("offer")
    assert bench.does("reattach", 61) == [DISCOVER]


def test_d15_a_link_that_flaps_while_a_remembered_lease_is_asked_for_asks_again() -> None:
    bench = Bench()
    bench.starts(5, REMEMBERED)
    assert bench.does("reattach", 6) == [KNOWN]
