"""From the operator's configuration to what the alias room takes: seconds become nanoseconds, words become numbers."""

from __future__ import annotations

from alias.types import QUESTION_NS, AliasSettings, Egress, Forward
from bridge.config.load import Config
from wire import ipv4
from wire.units import seconds_ns

_PROTOCOLS = {"tcp": ipv4.TCP, "udp": ipv4.UDP}
_EGRESSES = {"tap1": Egress.TAP1, "vpn": Egress.VPN}


def alias_settings(config: Config, late_s: int = 0) -> AliasSettings:
    """The `[alias]` table without its forwards. `late_s`: how late a link may hear of its packets; every timer waits so
    much longer, so that no link ends early."""
    alias = config.alias
    return AliasSettings(
        filtering=alias.filtering,
        udp_timeout_ns=seconds_ns(alias.udp_timeout + late_s),
        tcp_established_ns=seconds_ns(alias.tcp_established_timeout + late_s),
        tcp_transitory_ns=seconds_ns(alias.tcp_transitory_timeout + late_s),
        icmp_timeout_ns=seconds_ns(alias.icmp_timeout + late_s),
        question_timeout_ns=QUESTION_NS + seconds_ns(late_s),
        refresh_inbound=alias.refresh_inbound,
        unsolicited_syn=alias.unsolicited_syn,
        max_links=alias.max_links,
        max_links_per_host=alias.max_links_per_host,
        hosts=256 if config.tap0 is None else config.tap0.address.network.num_addresses,
    )


def forwards_from(config: Config) -> list[Forward]:
    """The `[[alias.forward]]` tables."""
    return [
        Forward(
            on=_EGRESSES[forward.on],
            protocol=_PROTOCOLS[forward.protocol],
            outside_port=forward.outside_port,
            inside=forward.inside.address,
            inside_port=forward.inside.port,
        )
        for forward in config.alias.forward
    ]


def reserved_ports(config: Config) -> list[tuple[Egress, int, int]]:
    """Outside ports that no link may get: the tunnel's own UDP port, which leaves beside the aliased traffic."""
    if config.tunnel is None:
        return []
    return [(Egress.TAP1, ipv4.UDP, config.tunnel.listen_port)]
