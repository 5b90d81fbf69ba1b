"""Option fields: reading, joining, splitting, and the values that are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp import options as option
from dhcp.options import ClasslessRoute
from wire.units import address_int


def read(area: bytes) -> dict[int, bytes] | None:
    found: dict[int, bytes] = {}
    return found if option.fields_of(area, found) else None


def test_d8_fields_end_at_end_or_with_the_area_and_pads_are_skipped() -> None:
    assert read(b"\x00\x01\x02ab\x00\x03\x01c\xff\x04\x01d") == {1: b"ab", 3: b"c"}
    assert read(b"\x01\x02ab") == {1: b"ab"}
    assert read(b"") == {}


@pytest.mark.parametrize("area", [b"\x01", b"\x01\x02a", b"\x00\x06\x04\x01\x02", b"\x01\xff" + bytes(254)])
def test_d8_a_field_that_is_cut_off_spoils_the_area(area: bytes) -> None:
    assert read(area) is None


def test_rfc_3396_repeated_options_are_one_long_option() -> None:
    assert read(b"\x79\x02ab\x06\x01x\x79\x02cd\xff") == {121: b"abcd", 6: b"x"}


@given(st.lists(st.tuples(st.integers(1, 254), st.binary(max_size=700)), unique_by=lambda one: one[0]))
def test_d8_written_options_are_read_back_whatever_their_length(options: list[tuple[int, bytes]]) -> None:
    assert read(option.written(options)) == dict(options)


@given(st.binary(max_size=400))
def test_d8_any_bytes_are_fields_or_none(area: bytes) -> None:
    read(area)


@pytest.mark.parametrize(
    ("value", "routes"),
    [
        ("00 c0a80101", [("0.0.0.0", 0, "192.168.1.1")]),
        ("18 0a0203 c0a80109 00 c0a80101", [("10.2.3.0", 24, "192.168.1.9"), ("0.0.0.0", 0, "192.168.1.1")]),
        ("20 0a000001 00000000", [("10.0.0.1", 32, "0.0.0.0")]),
        ("0c ac1f 0a000001", [("172.16.0.0", 12, "10.0.0.1")]),
    ],
)
def test_d10_classless_routes_are_read_as_rfc_3442_writes_them(value: str, routes: list[tuple[str, int, str]]) -> None:
    found = option.routes_in({121: bytes.fromhex(value)})
    assert found == tuple(ClasslessRoute(address_int(net), length, address_int(via)) for net, length, via in routes)


@pytest.mark.parametrize("value", ["", "21 0a000001 00000000", "18 0a02 c0a80109", "00 c0a801"])
def test_d10_malformed_classless_routes_count_as_absent(value: str) -> None:
    assert option.routes_in({121: bytes.fromhex(value)}) is None


def test_d11_values_of_the_wrong_length_count_as_absent() -> None:
    assert option.number_in({26: b"\x05\xdc"}, 26, 2) == 1500
    assert option.number_in({26: b"\x05"}, 26, 2) is None
    assert option.number_in({}, 51) is None
    assert option.addresses_in({6: b"\x01\x02\x03\x04\x05\x06\x07\x08"}, 6) == (0x01020304, 0x05060708)
    assert option.addresses_in({6: b"\x01\x02\x03"}, 6) == ()


def test_d11_a_domain_loses_its_zero_bytes_and_must_be_printable() -> None:
    assert option.text_in({15: b"isp.example\0\0"}, 15) == "isp.example"
    assert option.text_in({15: b"isp\x1b[2J"}, 15) is None
    assert option.text_in({15: b"\0"}, 15) is None
