"""A list of another kind: every line is wrong, and neither the work nor the words grow with it (report 45)."""

from __future__ import annotations

from bridge.config.errors import MOST_ERRORS as MOST_MISTAKES
from bridge.config.errors import ConfigError
from route.lists import MOST_ERRORS, parse_prefixes


def test_of_a_list_that_is_wrong_in_every_line_ten_lines_are_told_and_the_rest_is_counted() -> None:
    found = parse_prefixes("".join(f"2001:{number:x}::/48\n" for number in range(60_000)), "list.txt")
    assert (found.entries, len(found.errors)) == ([], MOST_ERRORS + 1)
    assert found.errors[0] == 'list.txt:1: "2001:0::/48" is IPv6, only IPv4 prefixes are carried: take it out'
    assert found.errors[-1].startswith("list.txt:11: and 59990 lines from here on")


def test_ten_wrong_lines_are_all_told_and_right_ones_between_them_are_taken() -> None:
    found = parse_prefixes("10.0.0.1/8\n1.0.0.0/8\n" * 10, "list.txt")
    assert (len(found.entries), len(found.errors)) == (10, 10)
    assert "has host bits set, 10.0.0.0/8 is the prefix and 10.0.0.1/32 the host" in found.errors[-1]


def test_a_thousand_mistakes_are_a_hundred_and_a_count() -> None:
    error = ConfigError(f"list-{number}.txt:1: wrong" for number in range(1000))
    assert len(error.errors) == MOST_MISTAKES + 1
    assert error.errors[-1] == "and 900 more mistakes: mend these, and look again"
