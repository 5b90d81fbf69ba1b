"""Two and three daemons of ours and real kernels: a LAN gateway, an exit node, and a machine that meets both there.

lan3 -- gw ==(sealed)== exit -- tun0 -- 8.8.8.8 (the exit's own kernel)
                         |  \\-- tap1 == br9 -- world 192.168.77.1, 9.9.9.9
                      (sealed)
                         |
                       phone 10.8.0.3
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.control.client import request
from lab.daemon import await_answer, start_daemon
from lab.namespace import Namespace
from lab.other_end import KeyFile
from lab.process import LabProcess
from lab.topology import CONFIGURATION, OUTER_EXIT, TAP0, TUN0, TUNNELLED, VPN_ALIAS, Lab
from tests.lab.far_end import until

pytestmark = pytest.mark.lab

EXIT_PORT = 51821
EXIT_TUN0, EXIT_TAP1, WORLD_ROUTER, WORLD = "192.168.192.1", "192.168.77.2", "192.168.77.1", "9.9.9.9"
PHONE, PHONE_OUTER, EXIT_FOR_PHONE = "10.8.0.3", "198.51.101.2", "198.51.101.1"


class Machines:
    """The lab with the namespaces `world` and `phone` beside it, keys for three daemons, and the daemons themselves."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.keys = {name: KeyFile(lab.folder / f"{name}.key") for name in ("home", "exit", "phone")}
        self.running: dict[str, LabProcess] = {}
        for kept in (*lab.folder.glob("*.links"), *lab.folder.glob("*.lists")):
            kept.unlink()  # of daemons of an earlier test

    def start(self, name: str, namespace: str, configuration: str) -> None:
        """Start a daemon and wait until it answers."""
        path, socket = self.lab.folder / f"{name}.toml", self.socket(name)
        own = f'[control]\nsocket = "{socket}"\n[tunnel]\nprivate_key_file = "{self.keys[name].path}"\n'
        path.write_text(configuration.replace("[tunnel]\n", own + f'state_file = "{name}.json"\n'))
        process = self.running[name] = start_daemon(self.lab.namespaces[namespace], path)
        await_answer(process, socket, name)

    def socket(self, name: str) -> Path:
        """The control socket of a daemon."""
        return self.lab.folder / f"{name}.sock"

    def ask(self, name: str, command: str, **arguments: object) -> dict[str, Any]:
        """Ask a daemon."""
        return request(self.socket(name), command, arguments)

    def stop(self) -> dict[str, str]:
        """End all daemons as an operator does; what each has logged."""
        told = {}
        for name, process in self.running.items():
            process.signal(signal.SIGTERM)
            code = process.wait()
            told[name] = process.errors()
            assert code == 0, told[name]
        return told

    # Configurations

    def home(self) -> str:
        """The LAN gateway: everything goes to the exit, the phone's address too."""
        without_device = CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', "")
        return without_device.replace('[control]\nsocket = "control.sock"\n', "") + (
            f'[tunnel]\n[peer.hk]\npublic_key = "{self.keys["exit"].public}"\n'
            f'endpoint = "{OUTER_EXIT}:{EXIT_PORT}"\nallowed_ips = ["0.0.0.0/0", "10.8.0.0/24"]\n'
        )

    def exit(self, more: str = "", *, leaves: bool = False) -> str:
        """The exit node: both others are its peers, and call it."""
        return (
            f'[tun0]\naddress = "{EXIT_TUN0}/24"\n[tunnel]\nlisten_port = {EXIT_PORT}\n'
            f'[peer.home]\npublic_key = "{self.keys["home"].public}"\nallowed_ips = ["{VPN_ALIAS}/32", "{TUN0}/32"]\n'
            f"exit = {str(leaves).lower()}\n"
            f'[peer.phone]\npublic_key = "{self.keys["phone"].public}"\nallowed_ips = ["{PHONE}/32"]\n'
        ) + more

    def phone(self) -> str:
        """A single host behind its tun0."""
        return (
            f'[tun0]\naddress = "{PHONE}/24"\ndefault_route = true\n[vpn]\nnode = "exit"\n[tunnel]\n'
            f'[peer.exit]\npublic_key = "{self.keys["exit"].public}"\n'
            f'endpoint = "{EXIT_FOR_PHONE}:{EXIT_PORT}"\nallowed_ips = ["0.0.0.0/0", "192.168.192.0/24"]\n'
        )


TAP1 = f'[tap1]\naddress = "{EXIT_TAP1}/24"\ngateway = "{WORLD_ROUTER}"\nbridge = "br9"\n'


@pytest.fixture(scope="module")
def wired(bare_lab: Lab) -> Iterator[Lab]:
    bare_lab.join_outside()
    exit_ = bare_lab.namespaces["exit"]
    for name in ("world", "phone"):
        bare_lab.namespaces[name] = Namespace(name)
    exit_.ip("link add br9 type bridge")
    exit_.ip("link set br9 up")
    exit_.ip("link add world type veth peer name eth0 netns world")
    exit_.ip("link set world master br9 up")
    bare_lab.namespaces["world"].ip("link set eth0 up")
    bare_lab.namespaces["world"].ip(f"addr add {WORLD_ROUTER}/24 dev eth0")
    bare_lab.namespaces["world"].ip(f"addr add {WORLD}/32 dev lo")
    exit_.ip("link add second type veth peer name outer netns phone")
    exit_.ip(f"addr add {EXIT_FOR_PHONE}/24 dev second")
    exit_.ip("link set second up")
    bare_lab.namespaces["phone"].ip(f"addr add {PHONE_OUTER}/24 dev outer")
    bare_lab.namespaces["phone"].ip("link set outer up")
    bare_lab.serve()
    far = bare_lab.namespaces["world"].start_python("-m", "lab.peers", "serve", WORLD)
    try:
        assert far.line() == "ready"
        yield bare_lab
    finally:
        far.stop()
        for name in ("world", "phone"):
            bare_lab.namespaces[name].remove()


@pytest.fixture
def machines(wired: Lab) -> Iterator[Machines]:
    wired.configure()
    found = Machines(wired)
    yield found
    for process in found.running.values():
        process.stop()


def assert_carried(lab: Lab, client: str, remote: str, seen_as: str) -> None:
    assert lab.client(client, "ping", remote)["ok"]
    for size in ("1", "1400", "4000"):
        answer = lab.client(client, "ask", remote, size, "3")
        assert answer["ok"], answer
        assert answer["seen_as"].partition(":")[0] == seen_as
    answer = lab.client(client, "transfer", remote, "5000000", "5000000")
    assert answer["ok"], answer
    assert answer["seen_as"].partition(":")[0] == seen_as


def test_the_lan_and_the_host_reach_what_the_exits_kernel_has(machines: Machines) -> None:
    lab = machines.lab
    machines.start("exit", "exit", machines.exit())
    machines.start("home", "gw", machines.home())
    assert_carried(lab, "lan3", TUNNELLED, VPN_ALIAS)
    assert_carried(lab, "gw", TUNNELLED, TUN0)
    hops = [lab.client("lan3", "ping", TUNNELLED, str(ttl)) for ttl in (1, 2, 3)]
    assert [(hop["from"], hop["type"]) for hop in hops] == [(TAP0, 11), (EXIT_TUN0, 11), (TUNNELLED, 0)]
    for size, code in ((1392, None), (1393, 4)):
        answer = lab.client("lan3", "ping", TUNNELLED, "64", str(size))
        assert (answer["ok"], answer["code"]) == (code is None, code or 0)
    assert lab.client("lan3", "ping", "9.8.7.6")["ok"] is False, "the kernel has no route: it decides"
    drops = machines.ask("exit", "stats")["drops"]
    assert {name for name, number in drops.items() if number} <= {"ip.ttl", "route.unreachable"}
    machines.stop()


def test_with_exit_the_lan_leaves_by_the_far_tap1_under_its_address(machines: Machines) -> None:
    lab = machines.lab
    machines.start("exit", "exit", machines.exit(TAP1, leaves=True))
    machines.start("home", "gw", machines.home())
    assert_carried(lab, "lan3", WORLD, EXIT_TAP1)
    assert_carried(lab, "gw", WORLD, EXIT_TAP1)
    hops = [lab.client("lan3", "ping", WORLD, str(ttl)) for ttl in (1, 2, 3)]
    assert [(hop["from"], hop["type"]) for hop in hops] == [(TAP0, 11), (EXIT_TUN0, 11), (WORLD, 0)]
    refused = lab.client("lan3", "knock", WORLD, "9")
    assert refused["ok"], "a reset and an ICMP error come all the way back"
    assert lab.client("lan3", "ping", "10.99.0.1")["code"] == 0, "a private range: 3/0, from our own gateway"
    links = machines.ask("exit", "alias.show")["links"]
    assert {link["inside"].partition(":")[0] for link in links} == {VPN_ALIAS, TUN0}
    assert {link["on"] for link in links} == {"tap1"}
    machines.stop()


def test_peers_reach_each_other_through_the_exit(machines: Machines) -> None:
    lab = machines.lab
    machines.start("exit", "exit", machines.exit(TAP1))
    machines.start("home", "gw", machines.home())
    machines.start("phone", "phone", machines.phone())
    lab.namespaces["exit"].ip("route add 10.8.0.0/24 dev tun0")  # the kernel is the operator's
    phone = lab.namespaces["phone"].start_python("-m", "lab.peers", "serve", PHONE)
    host = lab.namespaces["gw"].start_python("-m", "lab.peers", "serve", TUN0)
    try:
        assert (phone.line(), host.line()) == ("ready", "ready")
        until(lambda: lab.client("phone", "ping", EXIT_TUN0)["ok"], "the phone has called the exit")
        until(lambda: lab.client("gw", "ping", EXIT_TUN0)["ok"], "home has called the exit")
        assert_carried(lab, "phone", TUN0, PHONE)
        assert_carried(lab, "gw", PHONE, TUN0)
        assert_carried(lab, "lan3", PHONE, VPN_ALIAS)
        hop = lab.client("phone", "ping", TUN0, "2")
        assert (hop["from"], hop["type"]) == (EXIT_TUN0, 11)
        assert_carried(lab, "phone", TUNNELLED, PHONE)
        assert lab.client("phone", "ping", WORLD)["ok"] is False, "no exit, and the kernel has no way there"
        assert machines.ask("exit", "alias.show")["links"] == []
    finally:
        phone.stop()
        host.stop()
    machines.stop()
