"""The states of the client and which event leads where: RFC 2131 4.4, figure 5, as a table.

    INIT --TIMER--> SELECTING --OFFERED--> REQUESTING --ACKED--> BOUND --RENEW--> RENEWING --REBIND--> REBINDING
    BOUND --REBIND--> REBINDING (a late tick)
    INIT-REBOOT --TIMER--> REBOOTING --ACKED--> BOUND        RENEWING, REBINDING --ACKED--> BOUND
    REQUESTING, RENEWING, REBINDING, REBOOTING --NAKED--> INIT        REQUESTING, REBOOTING --SILENT--> INIT
    BOUND, RENEWING, REBINDING --EXPIRED, CONFLICT--> INIT
    any --REATTACHED--> INIT-REBOOT (where there is a lease to ask for again)
    any --RESTARTED, RELEASED, REFUSED--> INIT

The drawing shows `NEXT`. Where `NEXT` has no entry for a state and an event, the event cannot happen in that state.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import Final


class ClientState(StrEnum):
    """Row D1. The values are public: `bridgectl dhcp`."""

    INIT = "init"  # nothing is asked yet, or not before the pause ends, or not before the operator wants it
    SELECTING = "selecting"  # DISCOVER has left
    REQUESTING = "requesting"  # a REQUEST for an offer has left
    BOUND = "bound"
    RENEWING = "renewing"  # T1 has passed: the server of the lease is asked
    REBINDING = "rebinding"  # T2 has passed: all servers are asked
    INIT_REBOOT = "init-reboot"  # a lease of before is about to be asked for again
    REBOOTING = "rebooting"  # it is asked for, of all servers


class ClientEvent(Enum):
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


_HAS_ADDRESS: Final = (ClientState.BOUND, ClientState.RENEWING, ClientState.REBINDING)

NEXT: Final[dict[tuple[ClientState, ClientEvent], ClientState]] = {
    (ClientState.INIT, ClientEvent.TIMER): ClientState.SELECTING,
    (ClientState.INIT_REBOOT, ClientEvent.TIMER): ClientState.REBOOTING,
    (ClientState.SELECTING, ClientEvent.OFFERED): ClientState.REQUESTING,
    (ClientState.BOUND, ClientEvent.RENEW): ClientState.RENEWING,
    (ClientState.BOUND, ClientEvent.REBIND): ClientState.REBINDING,  # a late tick: T1 and T2 have passed
    (ClientState.RENEWING, ClientEvent.REBIND): ClientState.REBINDING,
    **{
        (state, ClientEvent.ACKED): ClientState.BOUND
        for state in (ClientState.REQUESTING, ClientState.REBOOTING, *_HAS_ADDRESS[1:])
    },
    **{
        (state, ClientEvent.NAKED): ClientState.INIT
        for state in (ClientState.REQUESTING, ClientState.REBOOTING, *_HAS_ADDRESS[1:])
    },
    **{(state, ClientEvent.SILENT): ClientState.INIT for state in (ClientState.REQUESTING, ClientState.REBOOTING)},
    **{
        (state, event): ClientState.INIT
        for state in _HAS_ADDRESS
        for event in (ClientEvent.EXPIRED, ClientEvent.CONFLICT)
    },
    **{
        (state, event): ClientState.INIT
        for state in ClientState
        for event in (ClientEvent.RESTARTED, ClientEvent.RELEASED, ClientEvent.REFUSED)
    },
    **{(state, ClientEvent.REATTACHED): ClientState.INIT_REBOOT for state in ClientState},
}
