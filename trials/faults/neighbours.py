"""The ISP's side changes under us: the router's hardware, and our address."""

from __future__ import annotations

import socket
from functools import partial

from bridge.ports.namespace import entered
from lab.flows import HOST_TO_VPN, LAN_TO_VPN
from lab.topology import HOSTS, ROUTER, TAP1
from trials.faults.case import Case
from trials.faults.links import OFFLOAD, WAITING
from trials.faults.stage import FaultStage
from wire.units import address_int

NEW_MAC = "02:bb:00:00:00:{:02x}"
ANNOUNCEMENTS, ANNOUNCEMENT_PAUSE_S = 2, 2.0  # RFC 5227 1.1
NEW_TAP1 = "192.168.1.77"


def _router_replaced(announces: bool, stage: FaultStage, _seconds: float) -> None:
    """Another router with the same address. The cause is gone when it is there: what follows is ours to find out."""
    isp = stage.lab.namespaces["isp"]
    old = isp.ip("-br link show dev eth0").split()[2]
    last = int(old.rpartition(":")[2], 16)
    mac = NEW_MAC.format((last + 1) % 256)
    stage.began()
    isp.ip(f"link set eth0 address {mac}")
    stage.over()
    for number in range(ANNOUNCEMENTS if announces else 0):
        if number:
            stage.hold(ANNOUNCEMENT_PAUSE_S)
        with entered("isp"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("eth0", 0))
            mouth.send(gratuitous_arp(bytes.fromhex(mac.replace(":", "")), ROUTER))
    stage.until(
        lambda: any(entry["ip"] == ROUTER and entry["mac"] == mac for entry in _entries(stage)),
        "the gateway knows the new router",
        60.0,
    )


def gratuitous_arp(mac: bytes, address: str) -> bytes:
    """RFC 5227 3: an announcement, a request for one's own address."""
    ip = address_int(address).to_bytes(4, "big")
    return b"\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + ip + bytes(6) + ip


def _entries(stage: FaultStage) -> list[dict[str, object]]:
    found: list[dict[str, object]] = stage.lab.ask("arp.show", port="tap1")["tables"][0]["entries"]
    return found


def _address_changes(stage: FaultStage, _seconds: float) -> None:
    """The ISP gives us another address; the configuration says so and is read again."""
    path = stage.lab.config_path
    before = path.read_text()
    links = {link["outside"] for link in stage.lab.ask("alias.show")["links"] if link["on"] == "tap1"}
    stage.expect(links, "there were no links of the old address")
    stage.began()
    path.write_text(before.replace(f'"{TAP1}/24"', f'"{NEW_TAP1}/24"'))
    stage.lab.ask("reload")
    stage.over()
    stage.passes(*OFFLOAD)
    outside = {
        link["outside"].partition(":")[0] for link in stage.lab.ask("alias.show")["links"] if link["on"] == "tap1"
    }
    stage.expect(outside == {NEW_TAP1}, f"there are links of {outside}")
    for name in HOSTS:
        seen = stage.lab.client(name, "ping", ROUTER)
        stage.expect(seen["ok"], f"{name} does not reach the router")
    path.write_text(before)


CASES = (
    Case(
        "isp-address",
        "tap1's address changes by a reload",
        _address_changes,
        touches=OFFLOAD,
        drops=WAITING | {"route.not_from_outside"},
        tcp=(LAN_TO_VPN, HOST_TO_VPN),
        renews=True,
    ),
    Case(
        "isp-mac-announced",
        "the ISP router's MAC address changes, announced",
        partial(_router_replaced, True),
        touches=OFFLOAD,
        drops=WAITING | {"arp.locked"},
    ),
    Case(
        "isp-mac-silent",
        "the ISP router's MAC address changes without a word",
        partial(_router_replaced, False),
        touches=OFFLOAD,
        drops=WAITING,
        recovers_s=60.0,
        is_tested=False,  # 38 s: 30 s until the entry is doubted, 5 s more, three questions
    ),
)
