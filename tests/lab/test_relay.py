"""Three daemons of ours: a LAN gateway and a far node that have no way to each other but the relay between them.

lan3 -- gw ==(sealed)== exit ==(sealed)== far 192.168.192.1
                    the relay's machine
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.control.client import request
from lab.daemon import await_answer, start_daemon
from lab.namespace import Namespace
from lab.other_end import KeyFile
from lab.process import LabProcess
from lab.topology import CONFIGURATION, OUTER_EXIT, TUN0, VPN_ALIAS, Lab
from tests.lab.far_end import until
from tests.laboratory import needing_the_kernel

pytestmark = pytest.mark.lab

DEADLINE_S = 45.0
FAR, RELAY_FOR_FAR = "192.168.192.1", "198.51.101.1"
NAMES = ("home", "relay1", "far")
LARGEST_INNER = 1368  # an envelope takes 52 bytes of 1420
CLIENTS = {"lan3": VPN_ALIAS, "gw": TUN0}


class Machines:
    """The relay's machine and the far node beside the lab, with keys for all three."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.keys = {name: KeyFile(lab.folder / f"{name}.key") for name in NAMES}
        self.running: dict[str, LabProcess] = {}
        self.where = {"relay1": lab.namespaces["exit"], "far": lab.namespaces["far"]}

    def configuration(self, name: str, more: str = "") -> str:
        """Home and the far node know the relay, which knows neither's address; both say `via` of each other."""
        common = f'[tunnel]\nname = "{name}"\nprivate_key_file = "{name}.key"\nstate_file = "{name}.json"\n{more}'
        other = {"home": "far", "far": "home"}.get(name)
        peers = self._peer("home", None) + self._peer("far", None)
        if other is not None:
            relay = OUTER_EXIT if name == "home" else RELAY_FOR_FAR
            peers = self._peer("relay1", f"{relay}:51820") + self._peer(other, None) + 'via = "relay1"\n'
        if name == "home":
            vpn = f'address = "{VPN_ALIAS}"\nnode = "far"\n'
            ports = CONFIGURATION.partition("[vpn]")[0] + f"[vpn]\n{vpn}"
            ports += '[offload]\nprefixes = ["offload.txt"]\n[control]\nsocket = "control.sock"\n'
        else:
            address = {"relay1": "10.99.0.1", "far": FAR}[name]
            ports = f'[tun0]\naddress = "{address}/24"\n[vpn]\nnode = "home"\n'
            ports += f'[control]\nsocket = "{name}.sock"\n'
        return ports + common + peers

    def _peer(self, name: str, endpoint: str | None) -> str:
        inner = f'["{FAR}/32"]' if name == "far" else f'["{VPN_ALIAS}/32", "{TUN0}/32"]'
        table = f'[peer.{name}]\npublic_key = "{self.keys[name].public}"\nallowed_ips = {inner}\n'
        if endpoint is None:
            return table
        return table.replace(inner, "[]") + f'endpoint = "{endpoint}"\npersistent_keepalive = 1\n'

    def start(self, name: str) -> None:
        """Start a daemon and wait until it answers."""
        if name == "home":
            self.lab.configure(self.configuration("home"))
            self.lab.start_gateway()
            return
        path = self.lab.folder / f"{name}.toml"
        path.write_text(self.configuration(name))
        process = self.running[name] = start_daemon(self.where[name], path)
        await_answer(process, self.lab.folder / f"{name}.sock", name)

    def reload(self, name: str, more: str = "") -> None:
        """Write another configuration and take it."""
        (self.lab.folder / f"{name}.toml").write_text(self.configuration(name, more))
        self.ask(name, "reload")

    def ask(self, name: str, command: str) -> dict[str, Any]:
        """Ask a daemon."""
        return self.lab.ask(command) if name == "home" else request(self.lab.folder / f"{name}.sock", command, {})

    def peer(self, at: str, name: str) -> dict[str, Any]:
        """A daemon's account of a peer."""
        return next(peer for peer in self.ask(at, "peers")["peers"] if peer["name"] == name)

    def stop(self) -> None:
        """End all daemons."""
        for process in self.running.values():
            process.stop()
        self.lab.remove_gateway()


@pytest.fixture(scope="module")
def machines(bare_lab: Lab) -> Iterator[Machines]:
    with needing_the_kernel():
        bare_lab.join_outside()
        far = bare_lab.namespaces["far"] = Namespace("far")
    exit_ = bare_lab.namespaces["exit"]
    try:
        exit_.ip("link add second type veth peer name outer netns far")
        exit_.ip(f"addr add {RELAY_FOR_FAR}/24 dev second")
        exit_.ip("link set second up")
        far.ip("addr add 198.51.101.2/24 dev outer")
        far.ip("link set outer up")
        found = Machines(bare_lab)
        try:
            for name in NAMES:
                found.start(name)
            until(
                lambda: all(found.peer("relay1", name)["state"] == "up" for name in ("home", "far")),
                "both have called the relay",
                DEADLINE_S,
            )
            server = far.start_python("-m", "lab.peers", "serve", FAR)
            try:
                assert server.line() == "ready"
                yield found
            finally:
                server.stop()
        finally:
            found.stop()
    finally:
        far.remove()


def has_routed_nothing(machines: Machines) -> bool:
    ports = machines.ask("relay1", "stats")["ports"]
    assert {"tun0", "vpn"} <= set(ports)
    return not any(any(port.values()) for port in ports.values())


@pytest.mark.parametrize("client", CLIENTS)
def test_everything_passes_the_relay_whole_and_the_relay_routes_nothing(machines: Machines, client: str) -> None:
    before = {name: machines.peer("relay1", name) for name in ("home", "far")}
    lab = machines.lab
    assert lab.client(client, "ping", FAR)["ok"]
    assert lab.client(client, "ping", FAR, "64", str(LARGEST_INNER - 28))["ok"]
    refused = lab.client(client, "ping", FAR, "64", str(LARGEST_INNER - 27))
    assert (refused["ok"], refused["type"], refused["code"]) == (False, 3, 4)
    for size in ("1", "1300", "4000"):
        assert lab.client(client, "ask", FAR, size, "3")["ok"]
    answer = lab.client(client, "transfer", FAR, "5000000", "5000000")
    assert answer["ok"], answer
    assert answer["seen_as"].partition(":")[0] == CLIENTS[client]
    for name in ("home", "far"):
        after = machines.peer("relay1", name)
        assert after["rx_bytes"] - before[name]["rx_bytes"] > 5_000_000
        assert after["tx_bytes"] - before[name]["tx_bytes"] > 5_000_000
    assert has_routed_nothing(machines)


def test_peers_behind_a_relay_are_told_with_it(machines: Machines) -> None:
    assert machines.lab.client("lan3", "ping", FAR)["ok"]
    far = machines.peer("home", "far")
    assert (far["via"], far["endpoint"], far["state"]) == ("relay1", None, "up")
    relay = machines.peer("home", "relay1")
    assert (relay["via"], relay["endpoint"], relay["state"]) == (None, f"{OUTER_EXIT}:51820", "up")
    words = ("-m", "bridgectl", "peers", "--socket", str(machines.lab.socket_path))
    assert "relay1" in machines.lab.namespaces["gw"].python(*words)


def test_a_relay_that_starts_anew_is_found_again(machines: Machines) -> None:
    assert machines.lab.client("lan3", "ping", FAR)["ok"]
    machines.running["relay1"].stop()
    machines.start("relay1")
    until(lambda: machines.lab.client("lan3", "ping", FAR)["ok"], "both nodes have called it again", DEADLINE_S)
    assert machines.lab.client("lan3", "transfer", FAR, "200000", "200000")["ok"]
    assert has_routed_nothing(machines)


def test_a_reload_of_the_relay_switches_relaying_off_and_on(machines: Machines) -> None:
    assert machines.lab.client("lan3", "ping", FAR)["ok"]
    machines.reload("relay1", "relay = false\n")
    assert not machines.lab.client("lan3", "ping", FAR)["ok"]
    assert machines.ask("relay1", "stats")["drops"]["tunnel.relay_off"] > 0
    machines.reload("relay1")
    until(lambda: machines.lab.client("lan3", "ping", FAR)["ok"], "it relays again", DEADLINE_S)
