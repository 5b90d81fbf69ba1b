"""The numbers of the protocol: when keys are renewed and refused, when a peer is called, answered and given up.

The names follow the WireGuard whitepaper, section 6.1, and wireguard-go's `constants.go`. Times are in ns.

| section | names |
|---|---|
| 6.2 transport message limits | `REKEY_AFTER_MESSAGES`, `REJECT_AFTER_MESSAGES`, `REKEY_AFTER_NS`, `REJECT_AFTER_NS` |
| 6.3 key rotation | `REKEY_WHILE_RECEIVING_NS`, `ERASE_NS` |
| 6.4 handshake initiation retransmission | `REKEY_TIMEOUT_NS`, `JITTER_NS`, `ATTEMPTS`, `UNANSWERED_NS` |
| 6.5 passive keepalive | `KEEPALIVE_NS` |
| 5.3 cookies | `COOKIE_LIFE_NS`, `INITIATION_PAUSE_NS` |
"""

from __future__ import annotations

from typing import Final

from wire.units import SECOND_NS

OFF: Final = 1 << 63
"""A deadline that never comes: the timer does not run."""

REKEY_AFTER_MESSAGES: Final = 1 << 60
"""After so many messages under a session its sender asks for a new one."""
REJECT_AFTER_MESSAGES: Final = (1 << 64) - (1 << 13) - 1
"""No message with this counter or a greater one is sent or accepted: 2^13 counters stay free for the replay window."""
REKEY_AFTER_NS: Final = 120 * SECOND_NS
"""At this age of a session its initiator asks for a new one with the next data."""
REJECT_AFTER_NS: Final = 180 * SECOND_NS
"""At this age nothing is sent or accepted under a session."""

REKEY_TIMEOUT_NS: Final = 5 * SECOND_NS
"""An initiation without a response is repeated after this time, and no sooner."""
JITTER_NS: Final = SECOND_NS // 3
"""Up to this much is added to `REKEY_TIMEOUT_NS`, so that two ends do not call each other in step."""
ATTEMPTS: Final = 20
"""Initiations in a series: the first one, one every 5 s for 90 s, and the one that finds the 90 s over."""
ATTEMPTS_IN_VAIN: Final = 4
"""After each so many (20 s) the caller is told that the peer may be elsewhere (`Happening.UNANSWERED`)."""
KEEPALIVE_NS: Final = 10 * SECOND_NS
"""Data that is not answered by data is answered by a keepalive after this time."""
UNANSWERED_NS: Final = KEEPALIVE_NS + REKEY_TIMEOUT_NS
"""Data that has had no answer for this time means that the session is of no use: a new one is asked for."""
REKEY_WHILE_RECEIVING_NS: Final = REJECT_AFTER_NS - KEEPALIVE_NS - REKEY_TIMEOUT_NS
"""An initiator that receives data under a session of this age asks for a new one before the old one is refused."""
ERASE_NS: Final = 3 * REJECT_AFTER_NS
"""This long after the last handshake all keys of a peer are overwritten."""

INITIATION_PAUSE_NS: Final = SECOND_NS // 50
"""Of one peer, an initiation that comes sooner after another one is dropped."""
COOKIE_LIFE_NS: Final = 120 * SECOND_NS
"""So long a cookie proves an address, and so long a peer that was sent one uses it."""
