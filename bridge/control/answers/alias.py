"""`bridgectl alias`: the NAT links."""

from __future__ import annotations

from alias.types import Link
from bridge.control.answers.question import (
    Arguments,
    ChangeAnswer,
    Subject,
    address_of,
    change,
    document,
    question,
    seconds,
)
from bridge.control.protocol import Document
from bridge.walk.gateway import Gateway
from bridge.walk.trace import end_text, protocol_name


@question("alias.show", in_fork=True)  # there may be hundreds of thousands
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """Every link that lives."""
    gateway = subject.gateway
    gateway.fast.harvest(gateway.fast.table.limit, now)
    links = [_link(gateway, link, now) for link in gateway.aliases.links(now)]
    return document(links=links, max_links=gateway.settings.alias.max_links)


@change("alias.flush")
def flush(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """End all links but the static ones, or those of the host `inside`."""
    hosts = None if arguments.get("inside") is None else {address_of(arguments, "inside")}
    return ChangeAnswer(document(flushed=subject.gateway.flush_links(hosts)), [])


def _link(gateway: Gateway, link: Link, now: int) -> Document:
    outside = gateway.interfaces[link.egress.label].address
    return {
        "protocol": protocol_name(link.protocol),
        "inside": end_text(link.inside, link.inside_port),
        "outside": end_text(outside, link.outside_port),
        "on": link.egress.label,
        "state": link.state,
        "idle_s": seconds(now - max(link.last_ns, gateway.started_ns)),  # a forward is made before the start
        "expires_s": None if link.is_static else seconds(link.expires_ns - now),
        "packets": link.packets,
        "bytes": link.bytes,
    }
