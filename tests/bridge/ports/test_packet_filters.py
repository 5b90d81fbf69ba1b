"""Which chains of a machine's firewall eat bridged frames: row G35."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.ports.packet_filters import dropping_chains

FORWARD = {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0}
DROPPING = {"chain": {**FORWARD, "policy": "drop"}}
ACCEPTING = {"chain": {**FORWARD, "policy": "accept"}}


def rule(*expressions: dict[str, Any], chain: str = "FORWARD") -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": list(expressions)}}


def from_device(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}}


COUNTER = {"counter": {"packets": 0, "bytes": 0}}


@pytest.mark.parametrize(
    ("ruleset", "drops", "accepted"),
    [
        ([DROPPING, rule(from_device("docker0"), {"accept": None})], True, False),
        ([DROPPING, rule(from_device("br0"), COUNTER, {"accept": None})], True, True),
        ([ACCEPTING, rule(COUNTER, {"reject": {"type": "icmpx"}})], True, False),
        ([ACCEPTING, rule(from_device("eth7"), {"drop": None})], False, False),
        ([ACCEPTING], False, False),
        ([{"chain": {**FORWARD, "hook": "input", "policy": "drop"}}], False, False),
        ([{"metainfo": {}}, {"table": {"family": "ip", "name": "filter"}}], False, False),
    ],
)
def test_g35_a_forward_chain_that_drops_is_found_and_a_rule_that_accepts_the_bridge_counts(
    ruleset: list[dict[str, Any]], drops: bool, accepted: bool
) -> None:
    found = dropping_chains(ruleset, "br0")
    assert bool(found) == drops
    assert not drops or (found[0].table, found[0].name, found[0].is_accepted) == ("filter", "FORWARD", accepted)
