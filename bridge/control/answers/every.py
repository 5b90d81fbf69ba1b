"""All questions and changes, by their commands on the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.control.answers import alias, arp, dhcp, flows, peers, route, stats, trace
from bridge.control.answers.question import Change, Question

QUESTIONS: Mapping[str, Question] = {
    asked.command: asked
    for asked in (
        arp.show,
        arp.entry,
        alias.show,
        flows.show,
        route.show,
        route.get,
        route.table,
        peers.show,
        dhcp.show,
        stats.show,
        trace.walk,
    )
}
CHANGES: Mapping[str, Change] = {
    change.command: change
    for change in (arp.flush, arp.add, arp.delete, arp.probe, alias.flush, dhcp.renew, dhcp.release)
}
