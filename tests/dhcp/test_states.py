"""Row D1: the states and what leads from one to another."""

from __future__ import annotations

import pytest

from dhcp.states import NEXT, ClientEvent, ClientState


def test_d1_the_states_are_those_of_rfc_2131() -> None:
    names = "init selecting requesting bound renewing rebinding init-reboot rebooting"
    assert [str(state) for state in ClientState] == names.split()


def reached(start: ClientState) -> set[ClientState]:
    found, fresh = {start}, {start}
    while fresh:
        fresh = {after for (before, _), after in NEXT.items() if before in fresh} - found
        found |= fresh
    return found


@pytest.mark.parametrize("state", ClientState)
def test_d1_every_state_leads_to_every_other(state: ClientState) -> None:
    assert reached(state) == set(ClientState)


def test_d1_only_an_ack_makes_a_lease() -> None:
    assert {event for (_, event), after in NEXT.items() if after is ClientState.BOUND} == {ClientEvent.ACKED}


@pytest.mark.parametrize("state", ClientState)
@pytest.mark.parametrize(
    "event", [ClientEvent.RELEASED, ClientEvent.RESTARTED, ClientEvent.REFUSED, ClientEvent.REATTACHED]
)
def test_d1_the_operator_the_link_and_a_refusal_are_heard_in_every_state(
    state: ClientState, event: ClientEvent
) -> None:
    assert NEXT[state, event] is (ClientState.INIT_REBOOT if event is ClientEvent.REATTACHED else ClientState.INIT)
