"""Which offers the gateway can live with."""

from __future__ import annotations

import pytest
from dhcp_bench import ADDRESS, LAN, SERVER, Options, granted, packet_of, reply
from hypothesis import given
from hypothesis import strategies as st

from dhcp import datagram
from dhcp import lease as leases
from dhcp.lease import Lease, Refusal
from dhcp.message import Message
from dhcp.options import ClasslessRoute
from dhcp.settings import LeaseLimits, Subnet
from wire.units import address_int, address_text

LIMITS = LeaseLimits(taken=(LAN, Subnet("vpn", address_int("192.168.192.210"), 32)))


def judged(options: Options, address: str = ADDRESS, limits: LeaseLimits = LIMITS) -> Lease | Refusal:
    read = datagram.read(packet_of(reply("offer", 1, options, address=address)))
    assert isinstance(read, Message)
    return leases.judge(read, limits)


def taken(options: Options, address: str = ADDRESS, limits: LeaseLimits = LIMITS) -> Lease:
    lease = judged(options, address, limits)
    assert isinstance(lease, Lease), lease
    return lease


def routes(text: str) -> tuple[int, bytes]:
    return 121, bytes.fromhex(text)


def test_d11_an_ordinary_offer_holds_what_the_gateway_needs() -> None:
    lease = taken(granted(("domain", "isp.example"), ("interface-mtu", 1400)))
    assert address_text(lease.address) == ADDRESS
    assert (lease.prefix_length, lease.gateway, lease.server) == (24, address_int(SERVER), address_int(SERVER))
    assert (lease.duration_s, lease.renew_s, lease.rebind_s) == (3600, 1800, 3150)
    assert (lease.dns, lease.domain, lease.mtu_bytes) == ((address_int("192.168.1.1"),), "isp.example", 1400)


@pytest.mark.parametrize(
    ("address", "mask"),
    [
        ("192.168.200.50", "255.255.255.0"),
        ("192.168.7.50", "255.255.0.0"),
        ("192.168.200.130", "255.255.255.252"),
        ("192.168.192.210", "255.255.255.255"),
        ("192.168.192.9", "255.255.255.0"),
    ],
)
def test_u7_d13_an_offer_that_overlaps_the_lan_or_the_alias_is_refused(address: str, mask: str) -> None:
    assert judged(granted(mask=mask, router=address), address) is Refusal.OVERLAP


def test_d13_a_neighbouring_network_does_not_overlap() -> None:
    assert taken(granted(router="192.168.201.1"), "192.168.201.50").gateway == address_int("192.168.201.1")


@pytest.mark.parametrize("address", ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255"])
def test_d13_an_address_that_no_host_may_have_is_refused(address: str) -> None:
    assert judged(granted(), address) is Refusal.ADDRESS


@pytest.mark.parametrize("address", ["192.168.1.0", "192.168.1.255"])
def test_d13_the_edges_of_a_subnet_are_refused(address: str) -> None:
    assert judged(granted(), address) is Refusal.EDGE


@pytest.mark.parametrize("mask", ["255.0.255.0", "0.0.0.0", "0.0.0.255"])
def test_d13_a_netmask_that_is_none_is_refused(mask: str) -> None:
    assert judged(granted(mask=mask)) is Refusal.MASK


@pytest.mark.parametrize(("address", "length"), [("10.0.0.5", 8), ("172.20.0.5", 16), ("203.0.113.5", 24)])
def test_d13_without_a_netmask_the_class_of_the_address_counts(address: str, length: int) -> None:
    assert taken([("lease_time", 60)], address).prefix_length == length


@pytest.mark.parametrize("options", [[("subnet_mask", "255.255.255.0")], granted(lease=0), granted(lease=3)])
def test_d11_a_lease_time_that_is_missing_or_too_short_is_refused(options: Options) -> None:
    assert judged(options) is Refusal.TIME


def test_d11_an_infinite_lease_has_no_timers() -> None:
    lease = taken(granted(lease=0xFFFFFFFF))
    assert (lease.duration_s, lease.renew_s, lease.rebind_s) == (None, None, None)


@pytest.mark.parametrize(
    ("mtu", "seen"), [(68, None), (575, None), (576, 576), (1400, 1400), (1500, 1500), (1501, None), (9000, None)]
)
def test_d11_option_26_counts_from_576_to_the_mtu_of_the_port(mtu: int, seen: int | None) -> None:
    assert taken(granted(("interface-mtu", mtu))).mtu_bytes == seen


@pytest.mark.parametrize(
    ("renew", "rebind", "seen"),
    [
        (600, 900, (600, 900)),
        (900, 600, (1800, 3150)),
        (600, 3600, (1800, 3150)),
        (0, 900, (1800, 3150)),
        (0, 3000, (1800, 3000)),
        (None, 3000, (1800, 3000)),
        (3200, None, (1800, 3150)),
    ],
)
def test_d5_t1_and_t2_of_the_server_count_where_they_are_in_order(
    renew: int | None, rebind: int | None, seen: tuple[int, int]
) -> None:
    more: Options = []
    if renew is not None:
        more.append(("renewal_time", renew))
    if rebind is not None:
        more.append(("rebinding_time", rebind))
    lease = taken([*granted(), *more])
    assert (lease.renew_s, lease.rebind_s) == seen


def test_d13_a_gateway_outside_the_subnet_is_refused() -> None:
    assert judged(granted(router="10.9.9.1")) is Refusal.GATEWAY


def test_d13_a_gateway_outside_the_subnet_is_reached_by_a_classless_route_to_it() -> None:
    lease = taken([*granted(router="10.9.9.9"), routes("20 0a090901 00000000 00 0a090901")])
    assert lease.gateway == address_int("10.9.9.1")
    assert lease.routes == (
        ClasslessRoute(address_int("10.9.9.1"), 32, 0),
        ClasslessRoute(0, 0, address_int("10.9.9.1")),
    )


def test_d13_an_address_alone_has_its_gateway_on_the_link() -> None:
    assert taken(granted(mask="255.255.255.255", router="10.9.9.1")).gateway == address_int("10.9.9.1")


@pytest.mark.parametrize("router", [ADDRESS, "224.0.0.1", "127.0.0.1"])
def test_d13_a_gateway_by_a_default_route_that_no_router_may_be_is_refused(router: str) -> None:
    assert judged([*granted(), routes("00" + f"{address_int(router):08x}")]) is Refusal.GATEWAY


def test_d10_classless_routes_beat_the_router_option() -> None:
    assert taken([*granted(), routes("00 c0a80109")]).gateway == address_int("192.168.1.9")
    assert taken([*granted(), routes("10 0a0a c0a80109")]).gateway == 0, "RFC 3442: option 3 is ignored"
    assert taken([*granted(), routes("21 0a0a c0a80109")]).gateway == address_int(SERVER), "malformed: as if absent"


def test_d10_a_lease_without_a_router_has_no_next_hop() -> None:
    assert taken([("subnet_mask", "255.255.255.0"), ("lease_time", 60)]).gateway == 0


def test_d13_the_operators_gateway_wins_over_the_servers() -> None:
    limits = LIMITS._replace(gateway=address_int("192.168.1.7"))
    assert taken(granted(router="10.9.9.1"), limits=limits).gateway == address_int("192.168.1.7")


@given(st.dictionaries(st.sampled_from([1, 3, 6, 15, 26, 51, 54, 58, 59, 121]), st.binary(max_size=12)), st.data())
def test_d8_whatever_the_options_hold_the_outcome_is_a_lease_that_fits_or_a_refusal(
    options: dict[int, bytes], data: st.DataObject
) -> None:
    address = data.draw(st.integers(0, 0xFFFFFFFF))
    found = leases.judge(Message(2, 1, 0, 0, 0, address, 0, 0, bytes(6), 2, options), LIMITS)
    if isinstance(found, Lease):
        assert found.duration_s is None or found.duration_s > (found.rebind_s or 0) > (found.renew_s or 0) > 0
        assert leases.conflict_of(found, LIMITS) is None
        assert found.mtu_bytes is None or 576 <= found.mtu_bytes <= 1500
