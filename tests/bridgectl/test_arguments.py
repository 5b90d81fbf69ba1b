"""Words and options in any order."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgectl.arguments import VALUED, WORDS, ordered
from bridgectl.main import COMMANDS, cli


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, groups too."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(cli)
    for word in COMMANDS:
        command = cli.get_command(context, word)
        assert command is not None
        found.append(((word,), command))
        if isinstance(command, click.Group):
            found += [((word, second), inner) for second, inner in command.commands.items()]
    return found


def test_the_words_are_those_of_the_commands() -> None:
    groups = {words[0]: set(command.commands) for words, command in commands() if isinstance(command, click.Group)}
    assert {word: set(seconds) for word, seconds in WORDS.items()} == groups


def test_the_options_that_take_a_value_are_those_that_declare_one() -> None:
    valued: set[str] = set()
    others: set[str] = set()
    for _, command in commands():
        for option in command.params:
            if isinstance(option, click.Option):
                (others if option.is_flag or option.count else valued).update(option.opts)
    assert valued - {"--watch"} == VALUED
    assert not valued & others


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("route get 1.2.3.4 -c FILE -j", "route get 1.2.3.4 -c FILE -j"),
        ("-j -c FILE route get 1.2.3.4", "route get -j -c FILE 1.2.3.4"),
        ("-jc FILE route get 1.2.3.4", "route get -jc FILE 1.2.3.4"),
        ("route -j get 1.2.3.4", "route get -j 1.2.3.4"),
        ("route --config=FILE get 1.2.3.4", "route get --config=FILE 1.2.3.4"),
        ("--port tap0 arp -j flush", "arp flush --port tap0 -j"),
        ("arp", "arp show"),
        ("-j arp --port tap0", "arp show -j --port tap0"),
        ("arp --help", "arp --help"),
        ("--help arp", "arp --help"),
        ("route 1.2.3.4", "route 1.2.3.4"),
        ("--watch arp", "arp show --watch=2"),
        ("arp --watch 5", "arp show --watch=5"),
        ("stats --watch -j", "stats --watch=2 -j"),
        ("stats --watch=7", "stats --watch=7"),
        ("trace --port tap0 udp A:1 B:2", "trace --port tap0 udp A:1 B:2"),
        ("capture -w - --port tap0", "capture -w - --port tap0"),
        ("demo -- --keep show", "demo -- --keep show"),
        ("--version", "--version"),
        ("-c", "-c"),
        ("", ""),
    ],
)
def test_words_come_first_and_the_rest_keeps_its_order(line: str, expected: str) -> None:
    assert ordered(line.split()) == expected.split()


@given(st.lists(st.sampled_from(["-j", "-c", "FILE", "arp", "show", "--watch", "--", "-", "--port=x", "add", "3"])))
def test_no_line_loses_or_makes_a_token_but_defaults(tokens: list[str]) -> None:
    def plain(line: list[str]) -> list[str]:
        return sorted(token for token in line if token not in ("show", "2", "3") and not token.startswith("--watch"))

    assert plain(ordered(tokens)) == plain(tokens)
