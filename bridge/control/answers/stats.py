"""`bridgectl stats`: counters of each port, and every drop reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.control.answers.question import Arguments, Subject, document, lists_of, question, seconds
from bridge.control.protocol import Document
from bridge.walk import balance
from bridge.walk.gateway import Gateway
from wire.units import mac_text

if TYPE_CHECKING:
    from bridge.vpn.ciphers import Cores


@question("stats")
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """Counters of each port and every drop reason, zeros shown."""
    gateway = subject.gateway
    counters, accounts = gateway.counters, balance.accounts(gateway)
    return document(
        uptime_s=seconds(now - gateway.started_ns),
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
        ipv6_routers=[{"port": name, "mac": mac_text(mac)} for name, mac in sorted(counters.ipv6_routers)],
        answered=counters.answered,
        lists=lists_of(subject),
        fast_path={
            **_fast_path(gateway, accounts),
            **sealing(subject.cores),
            "segmentation": None if subject.segmentation is None else subject.segmentation._asdict(),
            "lanes": subject.tunnel.lanes if subject.tunnel is not None else 0,
        },
    )


def _fast_path(gateway: Gateway, accounts: Mapping[str, balance.Account]) -> Document:
    """Is the flow table compiled? How many flows it holds, the frames that it repeated, and the frames that it left to
    the walk, by reason."""
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
    """The code that seals and opens for the tunnel, `compiled` or `plain`, and its threads; null and 0 without one."""
    return {"cipher": cores.kind, "threads": cores.threads} if cores is not None else {"cipher": None, "threads": 0}


def _drops_by_port(gateway: Gateway) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {name: {} for name in gateway.counters.ports}
    for (port, reason), number in sorted(gateway.counters.drops_by_port.items()):
        found.setdefault(port, {})[reason.value] = number
    return found
