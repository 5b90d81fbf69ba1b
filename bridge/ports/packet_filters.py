"""Firewall rules of this machine that eat frames between a bridge and our tap, without a trace of them at the gateway.

Where the module br_netfilter is loaded and `net.bridge.bridge-nf-call-iptables` is 1, IPv4 that crosses a bridge passes
the forward chains of iptables and nftables too. Docker, firewalld and Kubernetes bring such chains, and these drop what
no rule accepts; ARP passes, so that the neighbours look well. The rules are the operator's: they are named here, never
changed. Row G35 of the checklist.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge.ports.base import PortError
from bridge.ports.namespace import entered

_SWITCH: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_COMMAND: Final = ("nft", "-j", "list", "ruleset")
_PATIENCE_S: Final = 5
_FAMILIES: Final = ("ip", "inet", "bridge")
_SENT_THROUGH: Final = "br_netfilter sends bridged IPv4 through iptables (bridge-nf-call-iptables = 1)"
_MEND: Final = "sysctl -w net.bridge.bridge-nf-call-iptables=0"


class Chain(NamedTuple):
    """A chain that drops what none of its rules accepts. `is_accepted`: a rule that accepts names one of our bridges or
    the ports of bridges (physdev)."""

    family: str
    table: str
    name: str
    is_accepted: bool


def complaints(bridges: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    """A warning for each (bridge, namespace) whose frames such rules may eat: the rule, and what mends it; or that this
    process may not look."""
    for bridge, netns in sorted(set(bridges), key=str):
        try:
            with entered(netns):
                yield from _complaints_here(bridge)
        except PortError:
            continue  # the start says so


def _complaints_here(bridge: str) -> Iterator[str]:
    is_switched_on = _is_switched_on()
    ruleset = _ruleset()
    if isinstance(ruleset, str):
        if is_switched_on:
            yield (
                f"{bridge}: {_SENT_THROUGH}, and the rules could not be looked at ({ruleset}): if a FORWARD chain"
                f" drops, `{_MEND}` mends it"
            )
        return
    for chain in dropping_chains(ruleset, bridge):
        if chain.is_accepted:
            continue
        where = f"table {chain.family} {chain.table}, chain {chain.name}"
        if chain.family == "bridge":
            yield f"{bridge}: {where} drops bridged frames that no rule accepts: accept {bridge}'s there"
        elif is_switched_on:
            yield (
                f"{bridge}: {_SENT_THROUGH}, and {where} drops what no rule accepts, so that packets vanish between"
                f" {bridge}'s ports and our tap: `{_MEND}` mends it, or `nft insert rule {chain.family} {chain.table}"
                f" {chain.name} iifname {bridge} oifname {bridge} accept`"
            )


def _is_switched_on() -> bool:
    try:
        return _SWITCH.read_text().strip() == "1"
    except OSError:
        return False  # br_netfilter is not loaded


def _ruleset() -> list[dict[str, Any]] | str:
    """The objects of `nft -j list ruleset`, or why there are none to see."""
    try:
        listed = subprocess.run(_COMMAND, capture_output=True, timeout=_PATIENCE_S, check=False)
        if listed.returncode:
            return (listed.stderr.decode(errors="replace").strip().splitlines() or ["nft failed"])[0][:100]
        found = json.loads(listed.stdout)["nftables"]
    except FileNotFoundError:
        return "there is no nft"
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        return f"nft: {error}"[:100]
    return [item for item in found if isinstance(item, dict)]


def dropping_chains(ruleset: Iterable[dict[str, Any]], bridge: str) -> list[Chain]:
    """The chains on the forward hook that drop by their policy, or by a rule without a condition.

    `ruleset`: the objects of `nft -j`.
    """
    forward: dict[tuple[str, str, str], bool] = {}
    accepted: set[tuple[str, str, str]] = set()
    for item in ruleset:
        chain, rule = item.get("chain"), item.get("rule")
        if chain is not None and chain.get("hook") == "forward" and chain.get("family") in _FAMILIES:
            forward[chain["family"], chain["table"], chain["name"]] = chain.get("policy") == "drop"
        elif rule is not None and (key := (rule["family"], rule["table"], rule["chain"])) in forward:
            expressions = [part for part in rule["expr"] if "counter" not in part]
            if len(expressions) == 1 and expressions[0].keys() & {"drop", "reject"}:
                forward[key] = True
            text = json.dumps(rule["expr"])
            concerns_all = len(expressions) == 1
            if '"accept"' in text and (concerns_all or f'"{bridge}"' in text or "physdev" in text):
                accepted.add(key)
    return [Chain(*key, key in accepted) for key, drops in forward.items() if drops]
