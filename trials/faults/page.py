"""docs/faults.md as the suite writes it: what was done, what it cost, and what the figures mean."""

from __future__ import annotations

from collections.abc import Sequence

from trials.faults.case import CaseReport
from trials.faults.report import COSTS, FINDINGS, table

_HEAD = """\
# Faults under traffic

Written by `python -m trials.faults --write-docs` (`make faults` plays without writing; `--only NAME` plays one case,
`-j` prints everything that was measured). Two LAN hosts, the gateway, the ISP router and the tunnel's other end are
network namespaces of one machine; the gateway is the real daemon, the other end a second instance of ours where nothing
else is said. Each flow concerned sends 100 numbered datagrams a second (200 on bad wires), each of which is echoed, and
beside them a TCP connection that lasts through the whole case: all of it must come back, with the SHA-256 of the bytes
that were sent. The fault is brought about under that traffic and taken away.

Every case is judged: no flow that the fault does not concern loses anything; the others lose nothing that was sent
before the fault or after the recovery; the gateway counts no drops for other reasons than the fault's; TCP survives
(but where its address changes); memory and descriptors are as before. `tests/trials/faults/test_faults.py` plays
the same cases, shorter.

## The cost of each

*Lost* counts datagrams of all flows: on the way there, and echoes on the way back. *Refused* are those that the
sender's own kernel did not take, as when its route was gone. *Again after*: from the end of the fault to the first
echo of a datagram sent behind it, of the slowest flow.

"""
_FOUND = """
## Where it was lost, and what stayed

Drops are the gateway's own and those of the tunnel's other end. All other losses happened outside of both:
at a cable that is out, before a device that is not there, or by the wire.

"""
_TAIL = """
## Ground of the figures

- **The tun0 routes and a bridge that is made again.** The notes say who put them back. The kernel takes the half
  routes of `tun0.default_route` when tun0 goes down, and a tap knows nothing of a bridge that is made again under
  its old name.
- **The ISP router's MAC address, without a word.** A neighbour that stops answering is believed for 30 s after its
  last answer (RFC 4861 6.3.2), 5 s more once the entry is stale and in use, and is asked three times, a second
  apart: 38 s. A router that announces itself twice, as RFC 5227 2.3 has it, is followed after 2 s at most: an
  address that was set less than a second ago keeps its MAC address.
- **Peers.** A gateway of ours calls the peers of an earlier run as soon as it forwards, so its restart is noticed
  at once. WireGuard calls nobody whom it has nothing to say to: we find its restart when 15 s of ours stay
  unanswered (`KEEPALIVE_TIMEOUT + REKEY_TIMEOUT`). TCP goes on when its own retransmission timer fires, which has
  doubled with each try.
- **tap1's address.** Links of the old address end with it, as a kernel that masquerades has it: UDP opens new ones
  with its next datagram, TCP connections through tap1 are lost.
- **The wall clock.** It is stepped in the daemon alone (a `time.time_ns` that adds a number from a file): the
  machine's clock is not ours to step. Timers rest on the monotonic clock; only the stamps of handshakes use the
  wall clock, and they never step back, a restart included. The monotonic clock is moved by a time namespace.
- **Loss, copies, order.** `trials/cables/damage.py` carries the frames and decides by a seed. It counts our datagrams
  by their length: the ends miss exactly the datagrams that it lost. Around sealed packets nothing
  comes twice.
"""


def page(reports: Sequence[CaseReport]) -> str:
    """The whole page."""
    notes = [f"- `{report.case}`: {note}." for report in reports for note in report.notes]
    return _HEAD + table(reports, COSTS) + _FOUND + table(reports, FINDINGS) + "\n" + "\n".join(notes) + "\n" + _TAIL
