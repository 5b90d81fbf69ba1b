"""Questions and changes as the daemon sees them: which are answered in a fork, and that a question changes nothing."""

from __future__ import annotations

import pytest

from bridge.control.answers.every import CHANGES, QUESTIONS


def test_long_answers_and_those_that_change_what_they_look_at_are_made_in_a_fork() -> None:
    forked = {command for command, question in QUESTIONS.items() if question.in_fork}
    assert forked == {"alias.show", "arp.show", "flows", "route.show", "trace"}


@pytest.mark.parametrize("table", [QUESTIONS, CHANGES], ids=["questions", "changes"])
def test_a_command_is_listed_once_under_its_own_name(table: dict[str, object]) -> None:
    assert [command for command, found in table.items() if getattr(found, "command", None) != command] == []
    assert QUESTIONS.keys() & CHANGES.keys() == set()
