"""Rules between values of a configuration, the same for every purpose.

Only usable values are compared. Whether the file gives a table at all is asked of the `TomlFile`, so that a table which
is wrong by itself does not make other tables look wrong. The subnet of tap0 is a /8 to /30: the ARP table has one slot
for each address, and a LAN has hosts. The subnet of tap1 may be the /31 of a link between two routers (RFC 3021), or a
/32 whose router lies outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations

from bridge.config.findings import Findings
from bridge.config.model import Config, ForwardTable, Tap0Table, Tap1Table
from bridge.config.toml_file import TomlFile
from bridge.config.toml_lines import KeyPath
from route.lists import Prefix
from route.table import NEVER_FORWARDED
from tunnel.announce import MOST_PREFIXES
from tunnel.effects import SHORTEST_ANNOUNCED

_WIDEST_SUBNET = 8
_NARROWEST_LAN = 30
_MOST_OPTION_BYTES = 1000  # of a DHCP message, which must not be cut into fragments


def check(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Add every contradiction of a configuration to the findings."""
    _own_addresses(config, findings)
    _subnets_apart(config, findings)
    _next_hop(config, toml, findings)
    _behind_the_router(config, findings)
    for name, tap in (("tap0", config.tap0), ("tap1", config.tap1)):
        if tap is not None:
            _static_arp(name, tap, findings)
    _alias_address(config, findings)
    _forwards(config, toml, findings)
    _interface_names(config, findings)
    _macs_apart(config, findings)
    _announced(config, findings)
    _leased(config, toml, findings)
    _without_effect(config, toml, findings)


def _subnets(config: Config) -> Iterator[tuple[str, IPv4Interface]]:
    """The connected ports with their addresses."""
    if config.tap0:
        yield "tap0", config.tap0.address
    if config.tap1 and config.tap1.address is not None:
        yield "tap1", config.tap1.address
    if config.tun0:
        yield "tun0", config.tun0.address


def _edge(address: IPv4Address, subnet: IPv4Network) -> str | None:
    """The name of an address that no host of the subnet may have; None for a host's address."""
    if subnet.prefixlen <= 30 and address == subnet.network_address:
        return f"the network address of {subnet}"
    if subnet.prefixlen <= 30 and address == subnet.broadcast_address:
        return f"the broadcast address of {subnet}"
    return None


def _never_forwarded(address: IPv4Address) -> Prefix | None:
    host = Prefix(int(address), 32)
    return next((around for around in NEVER_FORWARDED if around.holds(host)), None)


def _own_addresses(config: Config, findings: Findings) -> None:
    for name, address in _subnets(config):
        path: KeyPath = (name, "address")
        length = address.network.prefixlen
        narrowest = _NARROWEST_LAN if name == "tap0" else 32
        if not _WIDEST_SUBNET <= length <= narrowest:
            findings.error(
                path, f"a /{length} is no subnet for this port, give one from /{_WIDEST_SUBNET} to /{narrowest}"
            )
        if edge := _edge(address.ip, address.network):
            findings.error(path, f"{address.ip} is {edge}, give a host's address")
        if around := _never_forwarded(address.ip):
            findings.error(path, f"{address.ip} lies in {around}, which is never forwarded: give another subnet")


def _subnets_apart(config: Config, findings: Findings) -> None:
    for (first, one), (second, other) in combinations(_subnets(config), 2):
        if one.network.overlaps(other.network):
            what = f"{other.network} overlaps {first}'s {one.network}, give each port a subnet of its own"
            findings.error((second, "address"), what)


def _next_hop(config: Config, toml: TomlFile, findings: Findings) -> None:
    tap1 = config.tap1
    written = toml.written("tap1")
    needs_one = isinstance(written, dict) and written.get("kind") != "tun" and written.get("address") != "dhcp"
    if needs_one and "gateway" not in written:
        findings.error(("tap1",), '"gateway" is missing, add the ISP router\'s address (or kind = "tun")')
    if tap1 is None or tap1.kind == "tun" or tap1.gateway is None:
        return
    if tap1.address is None:
        if around := _never_forwarded(tap1.gateway):
            findings.error(("tap1", "gateway"), f"{tap1.gateway} lies in {around}, give the ISP router's address")
        return
    if tap1.address.network.prefixlen == 32:
        _router_of_a_host_route(config, tap1.gateway, tap1.address, findings)
        return
    _neighbour(("tap1", "gateway"), tap1.gateway, "tap1", tap1.address, findings)


def _router_of_a_host_route(config: Config, gateway: IPv4Address, own: IPv4Interface, findings: Findings) -> None:
    """The router of a /32 may have any address of a host but those of other ports' subnets."""
    path: KeyPath = ("tap1", "gateway")
    if gateway == own.ip:
        findings.error(path, f"{gateway} is tap1's own address, give the other station's")
    if around := _never_forwarded(gateway):
        findings.error(path, f"{gateway} lies in {around}, give the ISP router's address")
    for name, other in _subnets(config):
        if name != "tap1" and gateway in other.network:
            findings.error(path, f"{gateway} lies in {name}'s subnet {other.network}, give the ISP router's address")


def _behind_the_router(config: Config, findings: Findings) -> None:
    """`tap1.networks`: not what another port has, and something that may be forwarded at all."""
    for index, prefix in enumerate(config.tap1.networks if config.tap1 else ()):
        path: KeyPath = ("tap1", "networks", index)
        network = IPv4Network((prefix.network, prefix.length))
        for name, other in _subnets(config):
            if name != "tap1" and network.subnet_of(other.network):
                findings.error(path, f"{prefix} lies in {name}'s subnet {other.network}, take it out")
        if around := next((around for around in NEVER_FORWARDED if around.holds(prefix)), None):
            findings.error(path, f"{prefix} lies in {around}, which is never forwarded: take it out")


def _neighbour(path: KeyPath, address: IPv4Address, name: str, own: IPv4Interface, findings: Findings) -> None:
    """Demand that an address is one of another host on the port's subnet."""
    if address not in own.network:
        findings.error(path, f"{address} is outside {name}'s subnet {own.network}, give an address inside")
    elif address == own.ip:
        findings.error(path, f"{address} is {name}'s own address, give the other station's")
    elif edge := _edge(address, own.network):
        findings.error(path, f"{address} is {edge}, give a host's address")


def _leased(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Check the demands of `address = "dhcp"`."""
    tap1 = config.tap1
    if tap1 is None:
        return
    if not tap1.is_leased:
        if toml.has("tap1", "dhcp"):
            findings.warn(("tap1", "dhcp"), 'has no effect on a static address, say address = "dhcp"')
        return
    if tap1.kind == "tun":
        what = '"dhcp" asks by Ethernet frames, which a "tun" has not: give the static address, or kind = "tap"'
        findings.error(("tap1", "address"), what)
    own = tap1.dhcp
    size = sum(map(len, (own.hostname, own.client_id, own.vendor_class, *own.options.values())))
    if size > _MOST_OPTION_BYTES:
        what = f"its values have {size} bytes, a message has room for {_MOST_OPTION_BYTES}: take some out"
        findings.error(("tap1", "dhcp"), what)


def _static_arp(name: str, tap: Tap0Table | Tap1Table, findings: Findings) -> None:
    for number, mac in tap.arp.items():
        address = IPv4Address(number)
        path: KeyPath = (name, "arp", str(address))
        if isinstance(tap, Tap1Table) and tap.gateway is not None and tap.neighbours == IPv4Network(tap.gateway):
            if address != tap.gateway:
                findings.error(path, f"{address} is no neighbour, the only one of a /32 is the router {tap.gateway}")
        elif tap.address is not None:
            _neighbour(path, address, name, tap.address, findings)
        if mac == tap.mac:
            findings.error(path, f"{mac.hex(':')} is {name}'s own MAC address, give the other station's")


def _alias_address(config: Config, findings: Findings) -> None:
    alias = config.vpn.address if config.vpn else None
    if alias is None:
        return
    path: KeyPath = ("vpn", "address")
    if around := _never_forwarded(alias):
        findings.error(path, f"{alias} lies in {around}, which is never forwarded: give another address")
    for name, own in _subnets(config):
        if alias == own.ip:
            findings.error(path, f"{alias} is {name}'s address too, give the alias an address of its own")
        elif name != "tun0" and alias in own.network:
            findings.error(path, f"{alias} lies in {name}'s subnet {own.network}, give an address outside of it")
        elif edge := _edge(alias, own.network):
            findings.error(path, f"{alias} is {edge} ({name}'s subnet), give a host's address")


def _forwards(config: Config, toml: TomlFile, findings: Findings) -> None:
    taken: dict[tuple[str, str, int], KeyPath] = {}
    for index, forward in enumerate(config.alias.forward):
        path: KeyPath = ("alias", "forward", index)
        if forward.on == "tap1" and not toml.has("tap1"):
            findings.error((*path, "on"), 'there is no [tap1], add it or forward on = "vpn"')
        if forward.on == "vpn" and not toml.has("vpn", "address"):
            findings.error((*path, "on"), 'there is no vpn.address, add it or forward on = "tap1"')
        if (
            forward.on == "tap1"
            and forward.protocol == "udp"
            and config.tunnel
            and forward.outside_port == config.tunnel.listen_port
        ):
            what = f"udp port {forward.outside_port} is tunnel.listen_port, give another"
            findings.error((*path, "outside_port"), what)
        if (forward.on, forward.protocol, forward.outside_port) == ("tap1", "udp", 68) and config.leases_tap1:
            findings.error((*path, "outside_port"), "udp port 68 is the DHCP client's own on tap1, give another")
        key = forward.on, forward.protocol, forward.outside_port
        if key in taken:
            what = f"{forward.protocol} port {forward.outside_port} of {forward.on} is forwarded already"
            findings.error((*path, "outside_port"), f"{what} (line {toml.line(taken[key])}), give another")
        taken.setdefault(key, path)
        _inside(config, toml, forward, (*path, "inside"), findings)


def _inside(config: Config, toml: TomlFile, forward: ForwardTable, path: KeyPath, findings: Findings) -> None:
    """Demand that a forward leads to a LAN host, to this host, or on tap1 to an address in a peer's prefix."""
    address = IPv4Address(forward.inside.address)
    if config.tun0 and address == config.tun0.address.ip:
        return
    if config.tap0 and address in config.tap0.address.network:
        _neighbour(path, address, "tap0", config.tap0.address, findings)
        return
    if (toml.has("tap0") and not config.tap0) or (toml.has("tun0") and not config.tun0):
        return  # the address may lie in the subnet that could not be read
    host = Prefix(forward.inside.address, 32)
    of_peers = [prefix for peer in config.peer.values() for prefix in peer.allowed_ips if prefix.length]
    if any(prefix.holds(host) for prefix in of_peers):
        if forward.on == "vpn":
            what = "is behind a peer, and a forward of the tunnel leads to no other peer"
            findings.error(path, f'{address} {what}: forward on = "tap1"')
        return
    places = [f"an address in tap0's subnet {config.tap0.address.network}"] if config.tap0 else []
    places += [f"tun0's address {config.tun0.address.ip}"] if config.tun0 else []
    places += ["an address of a peer's allowed_ips"] if of_peers and forward.on == "tap1" else []
    right = "give " + " or ".join(places) if places else "add [tap0] or [tun0]"
    findings.error(path, f"{address} is no inside host, {right}")


def _interface_names(config: Config, findings: Findings) -> None:
    ports = (("tap0", config.tap0), ("tap1", config.tap1), ("tun0", config.tun0), ("vpn", config.vpn))
    taken: dict[tuple[str | None, str], str] = {}
    for name, port in ports:
        if port is None or port.interface is None:
            continue
        first = taken.setdefault((port.netns, port.interface), name)
        if first != name:
            findings.error(
                (name, "interface"), f'"{port.interface}" is the device of {first} too, give each its own name'
            )
    for name, tap in ports[:2]:
        if isinstance(tap, Tap0Table | Tap1Table) and tap.bridge and (tap.netns, tap.bridge) in taken:
            what = f'"{tap.bridge}" is the device of {taken[tap.netns, tap.bridge]}, name the Linux bridge to join'
            findings.error((name, "bridge"), what)


def _macs_apart(config: Config, findings: Findings) -> None:
    """Demand two MAC addresses of two taps on one Linux bridge: the bridge would send all frames to one of them."""
    tap0, tap1 = config.tap0, config.tap1
    if tap0 is None or tap1 is None or tap1.kind == "tun" or tap0.mac != tap1.mac:
        return
    if tap0.bridge is not None and (tap0.netns, tap0.bridge) == (tap1.netns, tap1.bridge):
        what = f"{tap1.mac.hex(':')} is tap0's on the same bridge {tap1.bridge}, give each port its own"
        findings.error(("tap1", "mac"), what)


def _announced(config: Config, findings: Findings) -> None:
    """Refuse prefixes in `tunnel.announce` that every peer would refuse."""
    prefixes = config.tunnel.announce if config.tunnel and config.tunnel.announce else ()
    for index, prefix in enumerate(prefixes):
        path: KeyPath = ("tunnel", "announce", index)
        if prefix.length < SHORTEST_ANNOUNCED:
            findings.error(path, f"{prefix} is no network behind a node, give prefixes from /{SHORTEST_ANNOUNCED} on")
        elif around := next((never for never in NEVER_FORWARDED if never.holds(prefix) or prefix.holds(never)), None):
            findings.error(path, f"{around} is never forwarded, give a prefix outside of it")
    if len(prefixes) > MOST_PREFIXES:
        what = f"{len(prefixes)} prefixes do not fit into one message, give {MOST_PREFIXES} at most"
        findings.error(("tunnel", "announce"), what)


def _without_effect(config: Config, toml: TomlFile, findings: Findings) -> None:
    if toml.has("offload", "prefixes") and not toml.has("tap1"):
        findings.warn(("offload",), "nothing is offloaded without [tap1]")
    if config.tap1 and config.tap1.kind == "tun":
        for key in ("mac", "bridge", "arp"):
            if toml.has("tap1", key):
                findings.warn(("tap1", key), 'has no effect on a port of kind "tun", which speaks raw IP')
    _tunnel(config, toml, findings)
    if config.vpn and config.vpn.netns and not toml.has("vpn", "interface"):
        findings.warn(("vpn", "netns"), "has no effect without vpn.interface")
    for name, peer in config.peer.items():
        if peer.exit and not toml.has("tap1"):
            findings.warn(("peer", name, "exit"), "has no effect without [tap1]")
    if not toml.has("tap0"):
        _exit_node(config, toml, findings)


def _exit_node(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Warn of peers of an exit node whose packets get nowhere, or get no answer."""
    for name, peer in config.peer.items():
        path: KeyPath = ("peer", name)
        if not toml.has("tun0") and not (peer.exit and toml.has("tap1")):
            findings.warn(path, "its packets get no further than other peers, add [tun0] (or [tap1] and exit = true)")
        is_default = config.default_node == name or (toml.has("vpn", "node") and config.default_node is None)
        is_named = any(prefix.length for prefix in peer.allowed_ips)
        if peer.allowed_ips and not (is_named or is_default or peer.exit or peer.accept):
            what = "0.0.0.0/0 routes nothing to the peer, name the prefixes behind it"
            findings.warn((*path, "allowed_ips"), what)


def _tunnel(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Warn of tables and keys of the tunnel that have no effect."""
    if toml.has("peer") or toml.has("tunnel"):
        table = "tunnel" if toml.has("tunnel") else "peer"
        if toml.has("vpn", "interface"):
            findings.warn((table,), "no tunnel is opened: vpn.interface, which is not encrypted, takes its place")
        elif toml.has("tap0") and not toml.has("vpn"):
            findings.warn((table,), "no tunnel is opened on a LAN gateway without [vpn], add it with its node")
    relays = {peer.via for peer in config.peer.values()}  # useful without prefixes of their own
    for name, peer in config.peer.items():
        _accept(name, config, findings)
        if peer.via is not None and peer.endpoint is not None:
            findings.warn(("peer", name, "endpoint"), f"has no effect on a peer that is reached via {peer.via}")
        is_relay_alone = name in relays
        if not (toml.has("peer", name, "allowed_ips") or toml.has("peer", name, "accept") or is_relay_alone):
            findings.warn(("peer", name), 'nothing is taken from the peer, add allowed_ips = ["0.0.0.0/0"] or less')
    if config.tap0 and config.vpn and config.vpn.address:
        lan = config.tap0.address.network
        for index, prefix in enumerate(config.announced):
            if IPv4Network((prefix.network, prefix.length)).overlaps(lan):
                what = f"vpn.address hides {lan}, so no peer can reach it: remove vpn.address or this prefix"
                findings.warn(("tunnel", "announce", index), what)
    named: dict[Prefix, str] = {}
    for name, peer in config.peer.items():
        for index, prefix in enumerate(peer.allowed_ips):
            if (
                prefix.length or peer.exit
            ):  # of several that may send from anywhere, answers go to the first with `exit`
                first = named.setdefault(prefix, name)
                if first != name:
                    what = f"{prefix} is routed to {first}, which names it first"
                    findings.warn(("peer", name, "allowed_ips", index), what)


def _accept(name: str, config: Config, findings: Findings) -> None:
    """Warn of ranges in `accept` from which no announced prefix can be accepted."""
    connected = [(port, address.network) for port, address in _subnets(config) if port != "tun0"]
    for index, prefix in enumerate(config.peer[name].accept):
        path: KeyPath = ("peer", name, "accept", index)
        if around := next((never for never in NEVER_FORWARDED if never.holds(prefix)), None):
            findings.warn(path, f"has no effect: {around} is never forwarded")
        for port, network in connected:
            if IPv4Network((prefix.network, prefix.length)).subnet_of(network):
                findings.warn(path, f"has no effect: it lies in {port}'s subnet {network}")
