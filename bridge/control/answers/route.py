"""`bridgectl route`: where destinations go, and the moves from one routing table to another."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.control.answers.question import Arguments, Subject, address_of, document, lists_of, question
from bridge.control.protocol import Document
from bridge.walk.gateway import Gateway
from route.table import RouteTable, node_of
from wire.units import address_int, address_text, prefix_mask


@question("route.show", in_fork=True)  # it counts the addresses of a whole country's prefixes
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """Prefixes and addresses for each target."""
    return document(targets=list(subject.gateway.routes.summary()), lists=lists_of(subject))


@question("route.get")
def get(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The decision for `ip`, and the line that made it. If it names a node that cannot be reached, `node` is the node
    that new flows go to instead (null where there is none), and `why` says so."""
    gateway, address = subject.gateway, address_of(arguments)
    route = gateway.routes.get(address)
    found = document(destination=address_text(address), prefix=route.prefix, target=route.target, source=route.source)
    node = node_of(route.target)
    if node is not None and node in gateway.nodes.unreachable:
        found["node"], found["why"] = gateway.nodes.standing_in(node)
    return found


@question("route.table")
def table(subject: Subject, arguments: Arguments, now: int) -> Document:
    """Every prefix with its target, the configuration file that they come from, and the prefixes that peers announced.
    `bridgectl route diff` compares with it."""
    gateway = subject.gateway
    announced = {peer: [str(prefix) for prefix in prefixes] for peer, prefixes in gateway.announced.items()}
    return document(config=gateway.settings.source, entries=gateway.routes.entries(), announced=announced)


def moves_to(gateway: Gateway, routes: RouteTable, now: int) -> Document:
    """The moves from the gateway's routing table to another one, with the number of its live flows that each moves.

    A daemon works it out in a fork (`reload --dry-run`), because it takes long.
    """
    flows = ((flow.protocol, flow.inside, flow.outside) for flow in gateway.fast.live(now))
    return moves(gateway.routes, routes, ((flow, flow[2][0]) for flow in flows))


def moves(before: RouteTable, after: RouteTable, flows: Iterable[tuple[object, int]]) -> Document:
    """The moves from one routing table to another.

    `flows`: pairs of an identity, the same for both directions of a flow, and the address of its far end. A flow counts
    for the longest prefix that moves it.
    """
    found = before.diff(after)
    by_length: dict[int, dict[int, int]] = {}
    for index, move in enumerate(found):
        network, _, length = move.prefix.partition("/")
        by_length.setdefault(int(length), {})[address_int(network)] = index
    lengths = sorted(by_length, reverse=True)
    counts = [0] * len(found)
    for address in dict(flows).values():
        owners = (by_length[length].get(address & prefix_mask(length)) for length in lengths)
        owner = next((index for index in owners if index is not None), None)
        if owner is not None and before.target(address) != after.target(address):  # a longer prefix may stay
            counts[owner] += 1
    return document(
        moves=[
            {"prefix": move.prefix, "from": move.before, "to": move.after, "flows": count}
            for move, count in zip(found, counts, strict=True)
        ]
    )
