"""The lines of keys, in documents that use all that TOML allows."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.toml_lines import KeyLines, KeyPath

DOCUMENT = '''# a comment with [brackets] and a = b
title = "x # no comment" # a comment

[tap0]
address = "192.168.200.2/24"   # ours
text = """
[not.a.table]
key = "value"
\\""" still inside """"
mtu = 1500
raw = \'\'\'
[neither]
\'\'\'
[tap0.arp]
"192.168.200.9" = "02:aa:00:00:00:09"
'192.168.200.10' = "02:aa:00:00:00:0a"

[ offload ]
prefixes = [ # comment ]
  "a.txt", "b.txt",

  'c]txt',
  # "no.txt",
  "d.txt"
]
bypass = []
alias.udp_timeout = 300
alias . "icmp\\u005ftimeout" = 60
inline = { one = 1, two = [
  2, { deep.er = 3 } ], "thr ee" = "}" }
nested = [[1, 2],
          [3, 4]]

[[alias.forward]]
on = "tap1"
[[alias.forward]]

on = "vpn"
[alias.forward.more]
x = 1
[peer."h k"]
key = 1979-05-27T07:32:00Z
[late.child]
a = 1
[late]
b = 1
'''

LINES: list[tuple[KeyPath, int]] = [
    (("title",), 2),
    (("tap0",), 4),
    (("tap0", "address"), 5),
    (("tap0", "text"), 6),
    (("tap0", "mtu"), 10),
    (("tap0", "raw"), 11),
    (("tap0", "arp"), 14),
    (("tap0", "arp", "192.168.200.9"), 15),
    (("tap0", "arp", "192.168.200.10"), 16),
    (("offload",), 18),
    (("offload", "prefixes"), 19),
    (("offload", "prefixes", 0), 20),
    (("offload", "prefixes", 1), 20),
    (("offload", "prefixes", 2), 22),
    (("offload", "prefixes", 3), 24),
    (("offload", "bypass"), 26),
    (("offload", "alias", "udp_timeout"), 27),
    (("offload", "alias", "icmp_timeout"), 28),
    (("offload", "inline"), 29),
    (("offload", "inline", "two"), 29),
    (("offload", "inline", "two", 1, "deep", "er"), 30),
    (("offload", "inline", "thr ee"), 30),
    (("offload", "nested", 0, 1), 31),
    (("offload", "nested", 1, 0), 32),
    (("alias", "forward", 0), 34),
    (("alias", "forward", 0, "on"), 35),
    (("alias", "forward", 1), 36),
    (("alias", "forward", 1, "on"), 38),
    (("alias", "forward", 1, "more", "x"), 40),
    (("peer", "h k"), 41),
    (("peer", "h k", "key"), 42),
    (("late", "child", "a"), 44),
    (("late",), 45),
    (("late", "b"), 46),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_a_key_is_found_on_its_line(path: KeyPath, line: int) -> None:
    tomllib.loads(DOCUMENT)
    assert KeyLines(DOCUMENT).line(path) == line


def test_windows_line_endings_count_the_same() -> None:
    lines = KeyLines(DOCUMENT.replace("\n", "\r\n"))
    assert [lines.line(path) for path, _ in LINES] == [line for _, line in LINES]


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    lines = KeyLines(DOCUMENT)
    assert lines.line(("tap0", "mac")) == 4
    assert lines.line(("offload", "prefixes", 9)) == 19
    assert lines.line(("tun0", "address")) == 1
    assert lines.line(()) == 1
    assert KeyLines("").line(("tap0",)) == 1


_keys = st.text(alphabet='ab.#="[]{}\\ \té', min_size=0, max_size=4)
_strings = st.text(alphabet="a,#=\"[]{}\\\n'", max_size=6)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


@st.composite
def _values(draw: st.DrawFn, depth: int = 0) -> str:
    kind = draw(
        st.sampled_from(["int", "string", "long", "literal", "list", "table"] if depth < 2 else ["int", "string"])
    )
    if kind == "string":
        return _quoted(draw(_strings))
    if kind == "long":
        return '"""' + draw(_strings).replace("\\", "\\\\").replace('"', '\\"') + '"""'
    if kind == "literal":
        return "'''" + draw(_strings).replace("'", "") + "'''"
    if kind == "list":
        items = draw(st.lists(_values(depth + 1), max_size=3))
        return "[" + draw(st.sampled_from(["", "\n", " # ]\n"])) + draw(st.sampled_from([",", ",\n"])).join(items) + "]"
    if kind == "table":
        items = draw(st.dictionaries(_keys, _values(depth + 1), max_size=3))
        return "{" + ", ".join(f"{_quoted(key)} = {value}" for key, value in items.items()) + "}"
    return "7"


@given(st.dictionaries(_keys, st.dictionaries(_keys, _values(), max_size=4), max_size=4))
def test_every_key_of_a_random_document_is_found_on_its_line(tables: dict[str, dict[str, str]]) -> None:
    text, expected = "", {}
    for name, keys in tables.items():
        text += f"\n[{_quoted(name)}] # [\n"
        expected[(name,)] = text.count("\n")
        for key, value in keys.items():
            text += f"{_quoted(key)} = {value}\n"
            expected[name, key] = text.count("\n") - value.count("\n")
    tomllib.loads(text)
    lines = KeyLines(text)
    assert {path: lines.line(path) for path in expected} == expected
