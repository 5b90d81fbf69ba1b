"""Prefix lists: what is read, and what is said about lines that are no prefix."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from route.lists import Prefix, parse_prefix, parse_prefixes
from wire.units import address_int


def test_comments_blanks_and_line_endings_do_not_matter() -> None:
    text = "# China\r\n1.0.1.0/24\r\n\r\n  1.0.2.0/23  # two\n\t\n1.0.8.0/21#no blank\n1.2.3.4"
    assert parse_prefixes(text, "china.txt") == (
        "china.txt",
        [
            (address_int("1.0.1.0"), 24, 2),
            (address_int("1.0.2.0"), 23, 4),
            (address_int("1.0.8.0"), 21, 6),
            (address_int("1.2.3.4"), 32, 7),
        ],
        [],
    )


def test_an_empty_list_is_a_list() -> None:
    assert parse_prefixes("", "a").entries == []
    assert parse_prefixes("\n# nothing\n", "a").errors == []


def test_duplicates_are_kept_and_not_complained_about() -> None:
    assert parse_prefixes("1.0.0.0/8\n1.0.0.0/8\n", "a").entries == [(1 << 24, 8, 1), (1 << 24, 8, 2)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1/8", "has host bits set, 10.0.0.0/8 is the prefix and 10.0.0.1/32 the host"),
        ("0.0.0.1/0", "has host bits set, 0.0.0.0/0 is the prefix"),
        ("300.1.1.0/24", "has an octet that is above 255 (300)"),
        ("1.2.03.0/24", "has an octet that has a leading zero (03)"),
        ("1.2.3.0/33", 'has no prefix length from 0 to 32 after the slash ("/33")'),
        ("1.2.3.0/", 'has no prefix length from 0 to 32 after the slash ("/")'),
        ("1.2.3.0/024", "has no prefix length"),
        ("1.2.3.0/255.255.255.0", "has no prefix length"),
        ("1.2.3.0/-1", "has no prefix length"),
        ("1.2.3.0/24/24", "has no prefix length"),
        ("2001:250::/30", "is IPv6, only IPv4 prefixes are carried"),
        ("::", "is IPv6"),
        ("1.2.3", "is no IPv4 prefix, give a prefix as 203.0.113.0/24"),
        ("1.2.3.4.5", "is no IPv4 prefix"),
        ("1.2.3.+4/32", "is no IPv4 prefix"),
        ("1.2.3.٤/32", "is no IPv4 prefix"),
        ("1..3.4", "is no IPv4 prefix"),
        ("example.org", "is no IPv4 prefix"),
        ("1.2.3.0/24 5.6.7.0/24", "is more than a prefix, give one a line"),
        ("1.2.3.0 /24", "is more than a prefix"),
        ("x" * 500, "..."),
    ],
)
def test_a_bad_line_is_told_with_its_file_and_line_and_the_good_ones_are_kept(text: str, told: str) -> None:
    prefixes = parse_prefixes(f"1.0.0.0/24\n{text}\n2.0.0.0/24\n", "lists/china.txt")
    assert [entry[2] for entry in prefixes.entries] == [1, 3]
    [fault] = prefixes.errors
    assert fault.startswith("lists/china.txt:2: ")
    assert told in fault
    assert len(fault) < 200


def test_every_bad_line_is_told() -> None:
    assert [fault.split(":")[1] for fault in parse_prefixes("a\n1.1.1.1\nb\n\nc\n", "x").errors] == ["1", "3", "5"]


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_every_prefix_is_read_back_from_its_own_spelling(address: int, length: int) -> None:
    prefix = Prefix(address >> 32 - length << 32 - length, length)
    assert parse_prefix(str(prefix)) == prefix
    assert IPv4Network(str(prefix)) == IPv4Network((prefix.network, length))


@given(st.text(alphabet="0123456789./ x:#-", max_size=24))
def test_what_is_accepted_is_what_the_standard_library_accepts_too(text: str) -> None:
    try:
        prefix = parse_prefix(text)
    except ValueError:
        return
    assert IPv4Network(text) == IPv4Network((prefix.network, prefix.length))


def test_a_prefix_holds_itself_and_what_lies_inside() -> None:
    ten = parse_prefix("10.0.0.0/8")
    assert ten.holds(ten)
    assert ten.holds(parse_prefix("10.255.255.255"))
    assert not ten.holds(parse_prefix("11.0.0.0/9"))
    assert not ten.holds(parse_prefix("8.0.0.0/7"))
    assert parse_prefix("0.0.0.0/0").holds(ten)


def test_real_lists_are_read_without_a_fault(shared: Path) -> None:
    for name, count in [("china.txt", 4604), ("chinanet.txt", 4164), ("unicom.txt", 3894), ("cernet.txt", 94)]:
        prefixes = parse_prefixes((shared / "data/prefixes" / name).read_text(), name)
        assert (len(prefixes.entries), prefixes.errors) == (count, []), name


def test_of_a_real_ipv6_list_ten_lines_are_told_and_the_rest_is_counted(shared: Path) -> None:
    prefixes = parse_prefixes((shared / "data/prefixes/china6.txt").read_text(), "china6.txt")
    assert prefixes.entries == []
    assert all("is IPv6" in fault for fault in prefixes.errors[:-1])
    assert "and 1631 lines from here on are no prefix" in prefixes.errors[-1]
