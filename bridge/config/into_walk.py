"""From the operator's configuration to the settings of the walk: seconds become nanoseconds, words become numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from alias.types import AliasSettings, Egress, Forward
from bridge.config.into_routes import subnet_edges
from bridge.config.load import Config
from bridge.config.model import Tap0Table, Tap1Table
from bridge.walk.settings import GatewaySettings, IcmpSettings, PeerSettings, PortSettings
from dhcp.settings import ClientSettings, LeaseLimits, Subnet
from wire import ipv4
from wire.units import seconds_ns

_PROTOCOLS = {"tcp": ipv4.TCP, "udp": ipv4.UDP}
_EGRESSES = {"tap1": Egress.TAP1, "vpn": Egress.VPN}


def gateway_settings(config: Config) -> GatewaySettings:
    """All that the walk takes from a configuration."""
    return GatewaySettings(
        source=str(config.path.absolute()),
        ports=tuple(_ports(config)),
        alias=alias_settings(config),
        forwards=forwards_from(config),
        reserved_ports=reserved_ports(config),
        exempt=config.alias.exempt,
        icmp=IcmpSettings(
            answer_on_tap1=config.icmp.answer_on_tap1,
            errors_per_second=config.icmp.errors_per_second,
            mute=frozenset(config.icmp.mute),
        ),
        peers=_peers(config),
        default_node=config.default_node,
        has_default_port=config.vpn is not None,
    )


def alias_settings(config: Config) -> AliasSettings:
    """The `[alias]` table without its forwards."""
    alias = config.alias
    return AliasSettings(
        filtering=alias.filtering,
        udp_timeout_ns=seconds_ns(alias.udp_timeout),
        tcp_established_ns=seconds_ns(alias.tcp_established_timeout),
        tcp_transitory_ns=seconds_ns(alias.tcp_transitory_timeout),
        icmp_timeout_ns=seconds_ns(alias.icmp_timeout),
        refresh_inbound=alias.refresh_inbound,
        unsolicited_syn=alias.unsolicited_syn,
        max_links=alias.max_links,
        max_links_per_host=alias.max_links_per_host,
        hosts=256 if config.tap0 is None else config.tap0.address.network.num_addresses,
    )


def forwards_from(config: Config) -> tuple[Forward, ...]:
    """The `[[alias.forward]]` tables."""
    return tuple(
        Forward(
            on=_EGRESSES[forward.on],
            protocol=_PROTOCOLS[forward.protocol],
            outside_port=forward.outside_port,
            inside=forward.inside.address,
            inside_port=forward.inside.port,
        )
        for forward in config.alias.forward
    )


def client_settings(config: Config) -> ClientSettings | None:
    """How tap1's DHCP client presents itself, and what a lease must fit; None where the address is static. Row D13: a
    lease that overlaps the LAN, tun0's subnet or the vpn alias is refused."""
    tap1 = config.tap1
    if tap1 is None or not tap1.is_leased:
        return None
    taken = [
        Subnet(name, int(port.address.network.network_address), port.address.network.prefixlen)
        for name, port in (("tap0", config.tap0), ("tun0", config.tun0))
        if port is not None
    ]
    if config.vpn is not None and config.vpn.address is not None:
        taken.append(Subnet("vpn", int(config.vpn.address), 32))
    own = tap1.dhcp
    return ClientSettings(
        tap1.mac,
        own.hostname,
        own.client_id,
        own.vendor_class,
        tuple(sorted(own.options.items())),
        LeaseLimits(tuple(taken), int(tap1.gateway) if tap1.gateway is not None else 0, tap1.mtu),
    )


def reserved_ports(config: Config) -> tuple[tuple[Egress, int, int], ...]:
    """Outside ports that no link may get: the tunnel's own UDP port, which leaves beside the aliased traffic."""
    if config.tunnel is None:
        return ()
    return ((Egress.TAP1, ipv4.UDP, config.tunnel.listen_port),)


def is_ethernet(config: Config, port: str) -> bool:
    """True where frames of a port begin with an Ethernet header, also of one that is not configured: a replay writes
    an empty capture for it."""
    return port == "tap0" or (port == "tap1" and (config.tap1 is None or config.tap1.kind == "tap"))


def _ports(config: Config) -> Iterator[PortSettings]:
    if config.tap0 is not None:
        yield _tap(config, config.tap0, "tap0")
    if config.tap1 is not None:
        yield _tap(config, config.tap1, "tap1")
    if config.tun0 is not None:
        yield PortSettings(
            "tun0",
            framing="ip",
            is_inside=True,
            mtu_bytes=config.tun0_mtu,
            address=int(config.tun0.address.ip),
            edges=subnet_edges(config.tun0.address),
        )
    if config.has_vpn:
        alias = config.vpn.address if config.vpn is not None else None
        yield PortSettings(
            "vpn",
            framing="ip",
            is_inside=False,
            mtu_bytes=config.vpn_mtu,
            address=int(alias) if alias is not None else 0,
            egress=Egress.VPN,
        )


def _tap(config: Config, port: Tap0Table | Tap1Table, name: str) -> PortSettings:
    """The settings of tap0 or tap1; without address and subnet where DHCP brings them."""
    outside = port if isinstance(port, Tap1Table) else None
    is_raw = outside is not None and outside.kind == "tun"
    own = PortSettings(
        name,
        framing="ip" if is_raw else "ethernet",
        is_inside=outside is None,
        mtu_bytes=port.mtu,
        gateway=0 if outside is None or outside.gateway is None else int(outside.gateway),
        egress=None if outside is None else Egress.TAP1,
        mac=b"" if is_raw else port.mac,
        static_arp=dict(port.arp),
        arp_timeout_ns=seconds_ns(port.arp_timeout),
        written_at=(str(config.path), config.line(name, "address")),
    )
    if outside is not None and outside.is_leased:
        return replace(own, dhcp=client_settings(config))
    assert port.address is not None, "only tap1 leases its address"
    return replace(
        own,
        address=int(port.address.ip),
        network=int(port.address.network.network_address),
        prefix_length=port.address.network.prefixlen,
        edges=subnet_edges(port.address),
        beyond=own.gateway if port.address.network.prefixlen == 32 and not is_raw else 0,
    )


def _peers(config: Config) -> tuple[PeerSettings, ...]:
    is_plain = config.vpn is not None and config.vpn.interface is not None
    return tuple(
        PeerSettings(
            name,
            allowed_ips=None if is_plain else peer.allowed_ips,
            has_exit=peer.exit and not is_plain,
            fallbacks=_fallbacks(config, name),
        )
        for name, peer in config.peer.items()
    )


def _fallbacks(config: Config, node: str) -> tuple[str, ...]:
    """The nodes that stand in for one, in their order; a circle, which `check` refuses, ends where it closes."""
    chain: list[str] = []
    following = config.peer[node].fallback
    while following is not None and following != node and following not in chain:
        chain.append(following)
        following = config.peer[following].fallback if following in config.peer else None
    return tuple(chain)
