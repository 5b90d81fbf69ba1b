"""Row D1: the states and what leads from one to another."""

from __future__ import annotations

import pytest

from dhcp.states import NEXT, Event, State


def test_d1_the_states_are_those_of_rfc_2131() -> None:
    names = "init selecting requesting bound renewing rebinding init-reboot rebooting"
    assert [str(state) for state in State] == names.split()


def reached(start: State) -> set[State]:
    found, fresh = {start}, {start}
    while fresh:
        fresh = {after for (before, _), after in NEXT.items() if before in fresh} - found
        found |= fresh
    return found


@pytest.mark.parametrize("state", State)
def test_d1_every_state_leads_to_every_other(state: State) -> None:
    assert reached(state) == set(State)


def test_d1_only_an_ack_makes_a_lease() -> None:
    assert {event for (_, event), after in NEXT.items() if after is State.BOUND} == {Event.ACKED}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [Event.RELEASED, Event.RESTARTED, Event.REFUSED, Event.REATTACHED])
def test_d1_the_operator_the_link_and_a_refusal_are_heard_in_every_state(state: State, event: Event) -> None:
    assert NEXT[state, event] is (State.INIT_REBOOT if event is Event.REATTACHED else State.INIT)
