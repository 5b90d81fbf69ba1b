"""The states of the client and which event leads where: RFC 2131 4.4, figure 5, as a table.

    INIT --TIMER--> SELECTING --OFFERED--> REQUESTING --ACKED--> BOUND --RENEW--> RENEWING --REBIND--> REBINDING
    INIT-REBOOT --TIMER--> REBOOTING --ACKED--> BOUND        RENEWING, REBINDING --ACKED--> BOUND
    REQUESTING, RENEWING, REBINDING, REBOOTING --NAKED--> INIT        REQUESTING, REBOOTING --SILENT--> INIT
    BOUND, RENEWING, REBINDING --EXPIRED, CONFLICT--> INIT
    any --REATTACHED--> INIT-REBOOT (where there is a lease to ask for again)
    any --RESTARTED, RELEASED, REFUSED--> INIT

`NEXT` is the drawing; an event that it does not have for a state does not happen there.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import Final


class State(StrEnum):
    """Row D1. The values are public: `bridgectl dhcp`."""

    INIT = "init"  # nothing is asked yet, or not before the pause ends, or not before the operator wants it
    SELECTING = "selecting"  # DISCOVER has left
    REQUESTING = "requesting"  # a REQUEST for an offer has left
    BOUND = "bound"
    RENEWING = "renewing"  # T1 has passed: the server of the lease is asked
    REBINDING = "rebinding"  # T2 has passed: all servers are asked
    INIT_REBOOT = "init-reboot"  # a lease of before is about to be asked for again
    REBOOTING = "rebooting"  # it is asked for, of all servers


class Event(Enum):
    """Why a state is left."""

    TIMER = auto()  # the first question is due
    OFFERED = auto()
    ACKED = auto()
    NAKED = auto()
    SILENT = auto()  # nobody answered in time
    RENEW = auto()  # T1, or the operator
    REBIND = auto()  # T2
    EXPIRED = auto()
    CONFLICT = auto()  # another host uses the address
    REFUSED = auto()  # the server granted what the gateway cannot live with
    REATTACHED = auto()  # the link came back, or the network may be another one
    RESTARTED = auto()  # begin anew, with DISCOVER
    RELEASED = auto()


_HAS_ADDRESS: Final = (State.BOUND, State.RENEWING, State.REBINDING)

NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.INIT, Event.TIMER): State.SELECTING,
    (State.INIT_REBOOT, Event.TIMER): State.REBOOTING,
    (State.SELECTING, Event.OFFERED): State.REQUESTING,
    (State.BOUND, Event.RENEW): State.RENEWING,
    (State.BOUND, Event.REBIND): State.REBINDING,  # a late tick: T1 and T2 have passed
    (State.RENEWING, Event.REBIND): State.REBINDING,
    **{(state, Event.ACKED): State.BOUND for state in (State.REQUESTING, State.REBOOTING, *_HAS_ADDRESS[1:])},
    **{(state, Event.NAKED): State.INIT for state in (State.REQUESTING, State.REBOOTING, *_HAS_ADDRESS[1:])},
    **{(state, Event.SILENT): State.INIT for state in (State.REQUESTING, State.REBOOTING)},
    **{(state, event): State.INIT for state in _HAS_ADDRESS for event in (Event.EXPIRED, Event.CONFLICT)},
    **{(state, event): State.INIT for state in State for event in (Event.RESTARTED, Event.RELEASED, Event.REFUSED)},
    **{(state, Event.REATTACHED): State.INIT_REBOOT for state in State},
}
