"""Cables and devices: down and up, gone and made again."""

from __future__ import annotations

from functools import partial

from lab.flows import HOST_TO_OFFLOAD, HOST_TO_VPN, LAN_TO_OFFLOAD, LAN_TO_VPN
from trials.faults.case import Case
from trials.faults.stage import FaultStage

LAN = (LAN_TO_VPN, LAN_TO_OFFLOAD)
HOST = (HOST_TO_VPN, HOST_TO_OFFLOAD)
OFFLOAD = (LAN_TO_OFFLOAD, HOST_TO_OFFLOAD)
HALVES = ("0.0.0.0/1", "128.0.0.0/1")
WAITING = frozenset({"arp.no_answer", "arp.superseded"})
"""The drops of frames that wait for a next hop which does not answer, or not yet."""
ITSELF_S = 10.0
"""The warden's time at most; how long it took is in *again after*."""


def _down_and_up(device: str, stage: FaultStage, seconds: float) -> None:
    stage.began()
    stage.gw(f"link set {device} down")
    stage.hold(seconds)
    stage.gw(f"link set {device} up")
    stage.over()


def _tun0_down_and_up(stage: FaultStage, seconds: float) -> None:
    """The kernel takes the routes of a device that goes down, and brings only the connected one back; the warden brings
    the others."""
    stage.began()
    stage.gw("link set tun0 down")
    stage.hold(seconds)
    stage.gw("link set tun0 up")
    stage.expect(stage.becomes(partial(_has_halves, stage), ITSELF_S), "the half routes did not come back")
    stage.note("the half routes came back by themselves")
    stage.over()


def _has_halves(stage: FaultStage) -> bool:
    routes = stage.gw("route show dev tun0")
    return all(half in routes for half in HALVES)


def _bridge_made_again(bridge: str, tap: str, others: tuple[str, ...], stage: FaultStage, seconds: float) -> None:
    """The bridge's manager puts back the ports that it knows; the gateway's warden puts back the tap."""
    stage.began()
    stage.gw(f"link del {bridge}")
    stage.hold(seconds)
    stage.gw(f"link add {bridge} type bridge")
    stage.gw(f"link set {bridge} up")
    for other in others:
        stage.gw(f"link set {other} master {bridge}")
    came_back = stage.becomes(lambda: f"master {bridge}" in stage.gw(f"link show {tap}"), ITSELF_S)
    stage.expect(came_back, f"{tap} did not come back into {bridge}")
    stage.note(f"{tap} came back into {bridge} by itself")
    stage.over()


def _device_deleted(device: str, stage: FaultStage, _seconds: float) -> None:
    """The daemon ends with a message, and whoever watches over it starts it again at once."""
    stage.began()
    stage.gw(f"link del {device}")
    code = stage.gateway.wait()
    stage.expect(code == 1, f"the daemon ended with {code}")
    says = stage.gateway.errors()
    stage.expect(device in says and "Traceback" not in says, f"it did not say why it ended: {says[-500:]}")
    stage.start_gateway()
    stage.over()


CASES = (
    Case(
        "lan-cable",
        "the LAN host's cable out and in again",
        partial(_down_and_up, "lan3"),
        touches=LAN,
        drops=WAITING,
    ),
    Case(
        "isp-cable",
        "the ISP router's cable out and in again",
        partial(_down_and_up, "isp"),
        touches=OFFLOAD,
        drops=WAITING,
    ),
    Case("tap0-down", "tap0 down and up", partial(_down_and_up, "tap0"), touches=LAN, drops=frozenset({"port.down"})),
    Case(
        "tap1-down", "tap1 down and up", partial(_down_and_up, "tap1"), touches=OFFLOAD, drops=frozenset({"port.down"})
    ),
    Case("tun0-down", "tun0 down and up", _tun0_down_and_up, touches=HOST, drops=frozenset({"port.down"})),
    Case(
        "br0-again",
        "the LAN's bridge deleted and made again",
        partial(_bridge_made_again, "br0", "tap0", ("lan3", "lan4")),
        touches=LAN,
        drops=WAITING,
    ),
    Case(
        "br1-again",
        "the ISP side's bridge deleted and made again",
        partial(_bridge_made_again, "br1", "tap1", ("isp",)),
        touches=OFFLOAD,
        drops=WAITING,
    ),
    Case(
        "tap0-deleted",
        "tap0 deleted: the daemon ends and is started again",
        partial(_device_deleted, "tap0"),
        drops=WAITING | {"tunnel.unknown_index"},  # the other end goes on in the session of before
        restarts=True,
    ),
)
