"""What the gateway tells about itself: one function for each question, each answer one JSON document.

The control socket asks on the daemon's behalf, `bridgectl` asks a gateway of its own where no daemon runs and a
configuration file was named. Keys are public: they are added to, never renamed; every document has `"version": 1`.

`COMMANDS` name -> function(gateway, arguments, now) -> document; a `Refused` says what is wrong with a question,
and the exit code that `bridgectl` ends with. Two kinds need more of their caller: `ACTIONS` answer with effects, too,
which are to be carried out; `trace` changes the gateway that it walks through, so it belongs on a copy or in a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from alias.types import Link
from arp.effects import Entry
from bridge.config.into_tunnel import endpoint_text, prefix_of
from bridge.config.model import Config, PeerTable
from bridge.control.client import Document
from bridge.replay.run import Misuse, port_name
from bridge.walk import balance
from bridge.walk.effects import Effect
from bridge.walk.gateway import Gateway
from bridge.walk.interface import is_ethernet
from bridge.walk.outgoing import end_text, protocol_name
from route.table import RouteTable, node_of
from tunnel.effects import Status
from wire.ethernet import IPV4_TYPE
from wire.pcap import LINK_ETHERNET, LINK_RAW, LINKS_RAW
from wire.units import SECOND_NS, address_int, address_text, mac_bytes, mac_text, prefix_mask

if TYPE_CHECKING:
    from bridge.vpn.ciphers import Cores

Arguments = Mapping[str, Any]
VERSION = 1

FAILED, USAGE = 1, 2
# The sender's MAC address of a packet that `trace` is given without an Ethernet header.
_TRACED_SOURCE = bytes.fromhex("02feed000001")


class Refused(Exception):
    """A question that has no answer; `code` is the exit code it stands for."""

    def __init__(self, code: int, says: str) -> None:
        super().__init__(says)
        self.code = code


# ARP


def arp_show(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """The tables of all taps, or of `port`."""
    return _document(tables=[_table(gateway, port, now) for port in _arp_ports(gateway, arguments)])


def _table(gateway: Gateway, port: str, now: int) -> Document:
    table = gateway.arp[port]
    return {
        "port": port,
        "subnet": str(_subnet(gateway, port)),
        "slots": table.slots,
        "used": table.used,
        "entries": [_entry(entry) for entry in table.entries(now)],
    }


def _entry(entry: Entry) -> Document:
    return {
        "ip": address_text(entry.ip),
        "mac": mac_text(entry.mac) if entry.mac is not None else None,
        "state": entry.state,
        "age_s": round(entry.age_s, 3),
        "static": entry.static,
    }


def arp_flush(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Forget what was learned (static entries stay), on all taps or on `port`."""
    flushed = 0
    for port in _arp_ports(gateway, arguments):
        flushed += gateway.arp[port].flush()
    return _document(flushed=flushed)


def arp_add(gateway: Gateway, arguments: Arguments, now: int) -> tuple[Document, list[Effect]]:
    """A static entry: `ip`, `mac`, and `port` where the address alone does not tell. Frames that waited for it go."""
    port, address = _neighbour(gateway, arguments)
    try:
        mac = mac_bytes(str(arguments.get("mac", "")))
        effects = gateway.add_neighbour(port, address, mac, now)
    except ValueError as fault:
        raise Refused(USAGE, str(fault)) from fault
    return _document(port=port, ip=address_text(address), mac=mac_text(mac)), effects


def arp_delete(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Forget one entry, static or learned."""
    port, address = _neighbour(gateway, arguments)
    if not gateway.arp[port].delete(address):
        raise Refused(FAILED, f"{address_text(address)} has no entry on {port}")
    return _document(port=port, ip=address_text(address))


def arp_entry(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """One address' entry, null where it has none; `answered` is what came of a probe: true, false, or null as long as
    the question is open. This is what `bridgectl arp probe` polls for."""
    port, address = _neighbour(gateway, arguments)
    table = gateway.arp[port]
    entry = next((_entry(entry) for entry in table.entries(now) if entry.ip == address), None)
    return _document(port=port, entry=entry, answered=table.answered(address, now))


def arp_probe(gateway: Gateway, arguments: Arguments, now: int) -> tuple[Document, list[Effect]]:
    """Ask for an address now. The document is `arp_entry`'s."""
    port, address = _neighbour(gateway, arguments)
    effects = gateway.probe(port, address, now)
    return arp_entry(gateway, arguments, now), effects


def _arp_ports(gateway: Gateway, arguments: Arguments) -> list[str]:
    port = arguments.get("port")
    if port is None:
        return list(gateway.arp)
    if not isinstance(port, str) or port not in gateway.arp:
        raise Refused(USAGE, f"{port!r} is no port with an ARP table: {', '.join(gateway.arp) or 'there is none'}")
    return [port]


def _neighbour(gateway: Gateway, arguments: Arguments) -> tuple[str, int]:
    """The port and the address that are meant: the address lies in the port's subnet and is not our own."""
    address = _address(arguments)
    ports = _arp_ports(gateway, arguments)
    for port in ports:
        subnet = _subnet(gateway, port)
        if address & prefix_mask(subnet.prefixlen) != int(subnet.network_address):
            continue
        if not gateway.arp[port].is_resolvable(address):
            raise Refused(USAGE, f"{address_text(address)} is our own address or the edge of {port}'s subnet {subnet}")
        return port, address
    subnets = ", ".join(f"{_subnet(gateway, port)} on {port}" for port in ports)
    raise Refused(USAGE, f"{address_text(address)} is outside the subnet: {subnets or 'no port has one'}")


def _subnet(gateway: Gateway, port: str) -> Any:
    table = getattr(gateway.config, port)
    return table.neighbours if port == "tap1" else table.address.network


# NAT links and flows


def alias_show(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Every link that lives."""
    gateway.fast.harvest(gateway.fast.table.limit, now)
    links = [_link(gateway, link, now) for link in gateway.aliases.links(now)]
    return _document(links=links, max_links=gateway.config.alias.max_links)


def _link(gateway: Gateway, link: Link, now: int) -> Document:
    outside = gateway.interfaces[link.egress.label].address
    return {
        "protocol": protocol_name(link.protocol),
        "inside": end_text(link.inside, link.inside_port),
        "outside": end_text(outside, link.outside_port),
        "on": link.egress.label,
        "state": link.state,
        "idle_s": _seconds(now - max(link.last_ns, gateway.started_ns)),  # a forward is made before the start
        "expires_s": None if link.is_static else _seconds(link.expires_ns - now),
        "packets": link.packets,
        "bytes": link.bytes,
    }


def alias_flush(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """End all links but the static ones, or those of the host `inside`."""
    inside = arguments.get("inside")
    address = None if inside is None else _address({"ip": inside})
    return _document(flushed=gateway.flush_links(None if address is None else {address}))


def flows(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """The flows seen lately, the busiest first."""
    live = sorted(gateway.fast.live(now), key=lambda flow: (-flow.bytes, flow.inside, flow.outside))
    return _document(
        flows=[
            {
                "in": gateway.fast.name(flow.in_port),
                "out": gateway.fast.name(flow.out_port),
                "protocol": protocol_name(flow.protocol),
                "inside": end_text(*flow.inside),
                "outside": end_text(*flow.outside),
                "packets": flow.packets,
                "bytes": flow.bytes,
                "idle_s": _seconds(now - flow.last_seen_ns),
                "fast": flow.fast and gateway.fast.repeats,
            }
            for flow in live
        ]
    )


# Routes


def route_show(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Prefixes and addresses for each target."""
    return _document(targets=list(gateway.routes.summary()))


def route_get(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """The decision for `ip`, and the line that made it. Where it names a node that cannot be reached, `node` is the one
    that a new flow goes to instead, null where there is none, and `why` says so."""
    address = _address(arguments)
    route = gateway.routes.get(address)
    found = _document(destination=address_text(address), prefix=route.prefix, target=route.target, source=route.source)
    node = node_of(route.target)
    if node is not None and node in gateway.nodes.unreachable:
        found["node"], found["why"] = gateway.nodes.standing_in(node)
    return found


def route_table(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Every prefix with its target, the configuration file that they come from, and what peers announced: what `route
    diff` starts from."""
    announced = {peer: [str(prefix) for prefix in prefixes] for peer, prefixes in gateway.announced.items()}
    return _document(config=str(gateway.config.path.absolute()), entries=gateway.routes.entries(), announced=announced)


def moves_to(gateway: Gateway, routes: RouteTable, now: int) -> Document:
    """What another routing table would move, and how many live flows with each prefix."""
    flows = ((flow.protocol, flow.inside, flow.outside) for flow in gateway.fast.live(now))
    return moves(gateway.routes, routes, ((flow, flow[2][0]) for flow in flows))


def moves(before: RouteTable, after: RouteTable, flows: Iterable[tuple[object, int]]) -> Document:
    """What changes from one table to another. `flows`: an identity, the same for both directions, and the address of
    the far end; a flow counts for the longest prefix that moves it."""
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
    return _document(
        moves=[
            {"prefix": move.prefix, "from": move.before, "to": move.after, "flows": count}
            for move, count in zip(found, counts, strict=True)
        ]
    )


# Peers


def peers(config: Config, statuses: Iterable[Status], now: int) -> Document:
    """The tunnel's peers in the order of the configuration, also those that it does not serve."""
    by_name = {status.name: status for status in statuses}
    return _document(peers=[_peer(name, peer, by_name.get(name), now) for name, peer in config.peer.items()])


def _peer(name: str, peer: PeerTable, status: Status | None, now: int) -> Document:
    endpoint = status.endpoint if status is not None and peer.via is None else None
    return {
        "name": name,
        "public_key": peer.public_key,
        "endpoint": None if endpoint is None else endpoint_text(endpoint),
        "via": peer.via,
        "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
        "latest_handshake_s": _since(status.latest_handshake, now) if status is not None else None,
        "rx_bytes": status.rx_bytes if status is not None else 0,
        "tx_bytes": status.tx_bytes if status is not None else 0,
        "persistent_keepalive_s": peer.persistent_keepalive or None,
        "session_age_s": _since(status.session_since, now) if status is not None else None,
        "mtu": status.mtu_bytes if status is not None else None,
        "mtu_state": status.path if status is not None else None,
        "waiting": status.staged if status is not None else 0,
        "state": _peer_state(status),
        "accept": [str(prefix) for prefix in peer.accept],
        **(_announcements(status) if status is not None else {"announced": [], "refused": [], "told": []}),
    }


def _announcements(status: Status) -> Document:
    """What is taken and refused of what the peer announces, and what it answers to what we do."""
    verdicts = [(str(prefix_of(network)), verdict) for network, verdict in status.announced if verdict is not None]
    told = [(str(prefix_of(network)), verdict) for network, verdict in status.told]
    return {
        "announced": [prefix for prefix, verdict in verdicts if not verdict.is_refusal],
        "refused": [{"prefix": prefix, "reason": verdict.says} for prefix, verdict in verdicts if verdict.is_refusal],
        "told": [{"prefix": prefix, "answer": None if verdict is None else verdict.says} for prefix, verdict in told],
    }


def _peer_state(status: Status | None) -> str:
    if status is None:
        return "not served"
    if status.has_session:
        return "up"
    if status.endpoint is None:
        return "no endpoint"
    return "no answer" if status.has_given_up else "idle"


def _since(then: int | None, now: int) -> float | None:
    return None if then is None else _seconds(now - then)


# Counters


def stats(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Counters of each port and every drop reason, zeros shown."""
    gateway.fast.account()
    counters, accounts = gateway.counters, balance.accounts(gateway)
    return _document(
        uptime_s=_seconds(now - gateway.started_ns),
        ports={
            name: {
                "rx_packets": port.rx_packets,
                "rx_bytes": port.rx_bytes,
                "tx_packets": port.tx_packets,
                "tx_bytes": port.tx_bytes,
            }
            for name, port in counters.ports.items()
        },
        fates={
            name: {**account.fates, "refused": account.refused, "lost": account.lost}
            for name, account in accounts.items()
        },
        drops={reason.value: number for reason, number in counters.drops.items()},
        drops_by_port=_drops_by_port(gateway),
        ethertypes={f"0x{number:04x}": count for number, count in sorted(counters.ethertypes.items())},
        icmp={
            "errors": counters.icmp_errors,
            "suppressed": counters.icmp_errors_suppressed,
            "damaged_quotes": counters.damaged_quotes,
        },
        answered=counters.answered,
        fast_path={**_fast_path(gateway, accounts), **sealing(None), "lanes": 0},
    )


def _fast_path(gateway: Gateway, accounts: Mapping[str, balance.Account]) -> Document:
    """What repeats decisions: compiled or not, the flows that it knows, the frames that it repeated, and those that it
    left to the walk."""
    fast = gateway.fast
    return {
        "compiled": fast.table.compiled,
        "flows": len(fast),
        "repeated": {
            name: {"repeated_in": account.repeated_in, "repeated_out": account.repeated_out}
            for name, account in accounts.items()
        },
        "punts": {punt.name.lower(): number for punt, number in fast.punts.items()},
    }


def sealing(cores: Cores | None) -> Document:
    """What seals and opens for the tunnel, `compiled` or `plain`, and on how many threads; null and 0 without one."""
    return {"cipher": cores.kind, "threads": cores.threads} if cores is not None else {"cipher": None, "threads": 0}


def _drops_by_port(gateway: Gateway) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {name: {} for name in gateway.counters.ports}
    for (port, reason), number in sorted(gateway.counters.drops_by_port.items()):
        found.setdefault(port, {})[reason.value] = number
    return found


# One packet's walk


def trace(gateway: Gateway, arguments: Arguments, now: int) -> Document:
    """Walk one packet that comes in by `port`: `frame` (hex, as a capture of `link_type` holds it; without one, as the
    port carries it) or `packet` (hex, from the IP header on).

    It changes the gateway that it walks through.
    """
    port = _port(gateway, arguments)
    ethernet = is_ethernet(gateway.config, port)
    data = _bytes(arguments["packet"] if "packet" in arguments else arguments.get("frame"))
    link_type = _link_type(arguments)
    if link_type is None:
        link_type = LINK_ETHERNET if ethernet else LINK_RAW
    if not ethernet and link_type not in LINKS_RAW:
        raise Refused(FAILED, f"{port} carries raw IP (link types 101, 228 and 12), the frame has {link_type}")
    if ethernet and ("packet" in arguments or link_type in LINKS_RAW):
        data = gateway.interfaces[port].mac + _TRACED_SOURCE + IPV4_TYPE + data
    elif ethernet and link_type != LINK_ETHERNET:
        raise Refused(FAILED, f"{port} carries Ethernet (link type 1), the frame has {link_type}")
    from bridge.replay.summary import summary  # noqa: PLC0415 - dpkt, for the child that answers this, not for the daemon

    told = gateway.trace(port, data, now)
    return _document(
        steps=[{"room": room, "says": says} for room, says in told.steps],
        verdict=told.verdict,
        out=[
            {
                "port": sent.port,
                "summary": summary(bytes(sent.frame), ethernet=is_ethernet(gateway.config, sent.port)),
                "hex": bytes(sent.frame).hex(),
            }
            for sent in told.out
        ],
        drop=told.drop.value if told.drop is not None else None,
    )


def _port(gateway: Gateway, arguments: Arguments) -> str:
    """The port that a packet is said to come in by. Without a name it is the first that there is, or the first of raw
    IP where a capture holds raw IP."""
    name = arguments.get("port")
    if name is None:
        ports = list(gateway.interfaces)
        if not ports:
            raise Refused(FAILED, "the configuration has no port, add [tap0] (a LAN gateway) or [tun0] (an exit node)")
        raw = [port for port in ports if not is_ethernet(gateway.config, port)]
        name = raw[0] if raw and _link_type(arguments) in LINKS_RAW else ports[0]
    try:
        return port_name(gateway.config, gateway.routes, str(name))
    except Misuse as fault:
        raise Refused(USAGE, str(fault)) from fault


def _link_type(arguments: Arguments) -> int | None:
    """The link type that was given, if one was."""
    link_type = arguments.get("link_type")
    if link_type is not None and not isinstance(link_type, int):
        raise Refused(USAGE, "the link type must be a number, as a capture file has it")
    return link_type


def _bytes(text: object) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError as fault:
        raise Refused(USAGE, "the packet must be hexadecimal digits, two for each byte") from fault


Command = Callable[[Gateway, Arguments, int], Document]
Action = Callable[[Gateway, Arguments, int], tuple[Document, list[Effect]]]

ACTIONS: Mapping[str, Action] = {
    "arp.add": arp_add,
    "arp.probe": arp_probe,
}

COMMANDS: Mapping[str, Command] = {
    "arp.show": arp_show,
    "arp.flush": arp_flush,
    "arp.del": arp_delete,
    "arp.entry": arp_entry,
    "alias.show": alias_show,
    "alias.flush": alias_flush,
    "flows": flows,
    "route.show": route_show,
    "route.get": route_get,
    "route.table": route_table,
    "stats": stats,
    "trace": trace,
}


def _document(**keys: Any) -> Document:
    return {"version": VERSION, **keys}


def _address(arguments: Arguments) -> int:
    try:
        return address_int(str(arguments.get("ip", "")))
    except ValueError as fault:
        raise Refused(USAGE, str(fault)) from fault


def _seconds(duration_ns: int) -> float:
    return round(max(duration_ns, 0) / SECOND_NS, 3)
