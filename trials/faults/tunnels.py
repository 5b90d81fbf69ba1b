"""The tunnel's ends restart, and its port is blocked."""

from __future__ import annotations

import signal
from functools import partial

from lab.flows import FLOWS, HOST_TO_VPN, LAN_TO_VPN
from lab.other_end import FAR_PORT, OUR_PORT
from trials.faults.case import Case
from trials.faults.links import WAITING
from trials.faults.setting import End, Setting
from trials.faults.stage import FaultStage

TUNNELLED_FLOWS = (LAN_TO_VPN, HOST_TO_VPN)
HANDSHAKE = frozenset({"tunnel.queue_superseded", "tunnel.unknown_index", "tunnel.expired", "tunnel.outer_icmp"})
"""While there is no session, or no program behind the other end's port."""


def _peer_restarts(stage: FaultStage, seconds: float) -> None:
    stage.began()
    stage.end.kill()
    stage.hold(seconds)
    stage.end.start()
    stage.over()


def _both_restart(stage: FaultStage, _seconds: float) -> None:
    stage.began()
    stage.end.kill()
    stage.gateway.signal(signal.SIGKILL)
    stage.gateway.wait()
    stage.end.start()
    stage.start_gateway()
    stage.over()


def _blocked(faults: dict[str, object], stage: FaultStage, seconds: float) -> None:
    assert stage.wire is not None
    stage.began()
    before = stage.wire.set(**faults)
    stage.hold(seconds)
    after = stage.wire.set()
    stage.over()
    count = sum(after[way].get("blocked", 0) - before[way].get("blocked", 0) for way in after)
    stage.note(f"the wire stopped {count} datagrams")


def _restart(end: End, name: str) -> Case:
    return Case(
        f"peer-restarts-{name}",
        f"the other end ({'a second instance of ours' if end == 'ours' else end}) killed and started again",
        _peer_restarts,
        touches=TUNNELLED_FLOWS,
        drops=HANDSHAKE,
        setting=Setting(end=end),
        recovers_s=60.0,
        is_tested=end == "ours",  # WireGuard calls nobody whom it has nothing to say to: we notice after 15 s (W12)
    )


def _block(name: str, what: str, faults: dict[str, object], short_s: float) -> Case:
    return Case(
        f"port-blocked-{name}",
        f"the tunnel's UDP port blocked {what}",
        partial(_blocked, faults),
        seconds=60.0,
        short_s=short_s,
        touches=TUNNELLED_FLOWS,
        drops=HANDSHAKE,
        setting=Setting(outside="wire"),
        recovers_s=150.0,
    )


CASES = (
    _restart("ours", "ours"),
    Case(
        "both-restart",
        "both ends of the tunnel killed and started again",
        _both_restart,
        touches=FLOWS,
        drops=HANDSHAKE | WAITING,
        restarts=True,
        recovers_s=60.0,
    ),
    _block("both-ways", "both ways", {"blocked_ports": [OUR_PORT, FAR_PORT]}, 6.0),
    _block("there", "from us to the other end", {"blocked": ["there"]}, 2.0),
    _block("back", "from the other end to us", {"blocked": ["back"]}, 2.0),
    _restart("wireguard-go", "wireguard-go"),
)
