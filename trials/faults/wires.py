"""Cables that lose, double and reorder: on tap1's side and around the sealed packets."""

from __future__ import annotations

from collections import Counter
from functools import partial

from lab.flows import HOST_TO_OFFLOAD, HOST_TO_VPN, LAN_TO_OFFLOAD, LAN_TO_VPN
from trials.faults.case import Case, CaseReport
from trials.faults.setting import Setting
from trials.faults.stage import FaultStage

WIRES = {"tap1": (LAN_TO_OFFLOAD, HOST_TO_OFFLOAD), "tunnel": (LAN_TO_VPN, HOST_TO_VPN)}
SETTINGS = {"tap1": Setting(isp="wire"), "tunnel": Setting(outside="wire")}
FAULTS: dict[str, dict[str, object]] = {
    "1-percent": {"loss": 0.01},
    "5-percent": {"loss": 0.05},
    "20-percent": {"loss": 0.20},
    "twice": {"duplicate": 0.10},
    "reordered": {"reorder": 0.10, "displacement": 8},
}
FATES = ("lost", "duplicated", "displaced")
WHAT = {
    "1-percent": "loses 1 % each way",
    "5-percent": "loses 5 % each way",
    "20-percent": "loses 20 % each way",
    "twice": "doubles 10 %",
    "reordered": "delays 10 % behind up to 8 others",
}


PACKET_BYTES = {"tap1": 20 + 8 + 12, "tunnel": 20 + 8 + 16 + 48 + 16}
"""An IPv4 packet with a datagram of the traffic: as it is, or padded to 48 bytes and sealed. No other is as long."""


def _bad(which: str, faults: dict[str, object], stage: FaultStage, seconds: float) -> None:
    wire = stage.wire if which == "tunnel" else stage.isp_wire
    assert wire is not None
    stage.began()
    before = wire.set(**faults)
    stage.hold(seconds)
    after = wire.set()
    stage.over()
    done = {way: Counter(after[way]) - Counter(before[way]) for way in after}
    size = PACKET_BYTES[which]
    stage.wire_counts = {f"{fate} {way}": done[way][f"{fate} udp {size}"] for way in done for fate in FATES}
    told = [f"{sum(done[way][fate] for way in done)} {fate}" for fate in FATES]
    stage.note(f"of all packets on the wire: {', '.join(told)}")


def unexplained(which: str, report: CaseReport, counts: dict[str, int]) -> list[str]:
    """Where the account is not what the wire did: what is lost inside is what the wire has lost, nothing more."""
    there, back = (sum(getattr(one, name) for one in report.accounts) for name in ("lost_there", "lost_back"))
    found = []
    if (there, back) != (counts["lost there"], counts["lost back"]):
        found.append(f"lost {there} there and {back} back, the wire has lost {counts}")
    if which == "tunnel":
        twice = sum(one.duplicated for one in report.accounts)
        replayed = report.drops.get("tunnel.replay", 0)
        if twice or replayed < counts["duplicated back"]:
            found.append(f"{twice} came twice, {replayed} were dropped as replayed; the wire: {counts}")
    return found


def _case(which: str, name: str) -> Case:
    return Case(
        f"{which}-{name}",
        f"{'the cable of tap1' if which == 'tap1' else 'the path of the tunnel'} {WHAT[name]}",
        partial(_bad, which, FAULTS[name]),
        seconds=10.0,
        short_s=1.0,
        flows=WIRES[which],
        touches=WIRES[which],
        drops=frozenset({"tunnel.replay"}) if which == "tunnel" else frozenset(),
        tcp=WIRES[which],
        setting=SETTINGS[which],
        rate=200.0,
        is_tested=name not in ("1-percent", "5-percent"),
        check=partial(unexplained, which),
    )


CASES = tuple(_case(which, name) for which in WIRES for name in FAULTS)
