"""tap1's lease: its server gone, beside a rogue one, back with another address, and the lease lost."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess
from lab.topology import TAP1
from trials.faults.case import Case
from trials.faults.links import OFFLOAD, WAITING
from trials.faults.setting import Setting
from trials.faults.stage import LEASE_S, FaultStage

LEASED = Setting(is_leased=True)
NEW_ADDRESS = "192.168.1.77"
ROGUE, ROGUE_ADDRESS = "rogue", "192.168.1.66"
NO_ADDRESS = WAITING | {"route.unreachable", "route.not_from_outside", "dhcp.unexpected"}
_WAIT_S = 3.0 * LEASE_S


def _state(stage: FaultStage) -> str:
    return str(stage.lab.ask("dhcp.show")["lease"]["state"])


def _address(stage: FaultStage) -> str | None:
    address: str | None = stage.lab.ask("dhcp.show")["lease"]["address"]
    return address


def _server_gone(stage: FaultStage, _seconds: float) -> None:
    """The server hangs when the lease is to be renewed, and is back when all servers are asked: nothing is lost."""
    stage.began()
    stage.leases.signal(signal.SIGSTOP)
    stage.until(lambda: _state(stage) == "rebinding", "the server is asked in vain", _WAIT_S)
    stage.leases.signal(signal.SIGCONT)
    stage.until(lambda: _state(stage) == "bound", "the lease is renewed", _WAIT_S)
    stage.over()
    stage.expect(_address(stage) == TAP1, "the address is another one")


def _lease_lost(stage: FaultStage, _seconds: float) -> None:
    """The server is away until the lease ends: the address goes, and comes again with the server."""
    stage.stop_leases()
    stage.until(lambda: _state(stage) == "rebinding", "all servers are asked in vain", _WAIT_S)
    stage.began()
    stage.until(lambda: _address(stage) is None, "the lease ends", _WAIT_S)
    stage.lend(TAP1)
    stage.until(lambda: _address(stage) == TAP1, "the address is back", 60.0)
    stage.over()


def _other_address(stage: FaultStage, _seconds: float) -> None:
    """The server forgets its leases and lends another address: it says no at the renewal."""
    stage.stop_leases()
    stage.began()
    stage.lend(NEW_ADDRESS)
    stage.until(lambda: _address(stage) == NEW_ADDRESS, "the new address is there", _WAIT_S)
    stage.over()
    stage.passes(*OFFLOAD)
    outside = {one["outside"].partition(":")[0] for one in stage.lab.ask("alias.show")["links"] if one["on"] == "tap1"}
    stage.expect(outside == {NEW_ADDRESS}, f"there are links of {outside}")


def _rogue_server(stage: FaultStage, seconds: float) -> None:
    """Beside a server that says no to everybody the ISP's cable is out and in again: the gateway asks all servers
    whether its address still holds, and its own server's word counts."""
    with ExitStack() as stack:
        rogue = Namespace(ROGUE)
        stack.callback(rogue.remove)
        stage.gw("link add rogue-port type veth peer name eth0 netns rogue")
        stage.gw("link set rogue-port master br1 up")
        rogue.ip(f"addr add {ROGUE_ADDRESS}/24 dev eth0")
        rogue.ip("link set eth0 up")
        server = rogue.start_python("-m", "lab.leases", f"{ROGUE_ADDRESS}/24", ROGUE_ADDRESS)
        stack.callback(server.stop)
        if server.line() != "ready":
            raise CommandFailed("the rogue server does not begin")
        stage.began()
        stage.lab.namespaces["isp"].ip("link set eth0 down")
        stage.hold(seconds)
        stage.lab.namespaces["isp"].ip("link set eth0 up")
        stage.over()
        stage.expect(_says_no(server), "the rogue server was not asked")
        stage.until(lambda: _state(stage) == "bound", "its own server has answered", _WAIT_S)
        stage.passes(*OFFLOAD)
    stage.expect(_address(stage) == TAP1, "the rogue server took the address away")


def _says_no(server: LabProcess) -> bool:
    return server.line().startswith("nak ")


CASES = (
    Case(
        "lease-server-gone",
        "the DHCP server gone when the lease is renewed, and back before it ends",
        _server_gone,
        touches=(),
        drops=frozenset({"dhcp.unexpected"}),
        setting=LEASED,
    ),
    Case(
        "lease-server-rogue",
        "the ISP router's cable out and in again beside a rogue DHCP server that says no to everybody",
        _rogue_server,
        touches=OFFLOAD,
        drops=NO_ADDRESS | {"arp.not_for_us"},
        setting=LEASED,
    ),
    Case(
        "lease-address",
        "the DHCP server lends another address at the renewal",
        _other_address,
        touches=OFFLOAD,
        tcp=(),
        drops=NO_ADDRESS,
        setting=LEASED,
        renews=True,
    ),
    Case(
        "lease-lost",
        "the DHCP server gone until the lease has ended, and back",
        _lease_lost,
        touches=OFFLOAD,
        tcp=(),
        drops=NO_ADDRESS,
        setting=LEASED,
        recovers_s=60.0,
        renews=True,
    ),
)
