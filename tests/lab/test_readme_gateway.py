"""The README's setups, by its own files: the gateway, with two NICs and with one, and the tunnel to an exit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.control.client import request
from lab.daemon import await_answer, start_daemon
from lab.namespace import Namespace
from lab.other_end import KeyFile
from lab.outside import OUTER_EXIT
from lab.private import private_names
from lab.process import ROOT
from lab.topology import HOSTS, OFFLOADED, ROUTER, TAP0, TAP1, TUNNELLED, Lab
from tests.lab.far_end import peer, until
from tests.laboratory import needing_the_kernel

pytestmark = pytest.mark.lab

README = (ROOT / "README.md").read_text()


def state_of_lease(folder: Path) -> str:
    return str(request(folder / "control.sock", "dhcp.show", {})["lease"]["state"])


@pytest.fixture(params=["two NICs", "one NIC"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Namespace, Namespace, Path]]:
    """The LAN host, the ISP router, and the gateway's folder; the cables are in br0 and br1, or both in br0."""
    with needing_the_kernel(), private_names(), ExitStack() as stack:
        here, host, isp = (Namespace(name) for name in ("gw", "lan3", "isp"))
        for namespace in (here, host, isp):
            stack.callback(namespace.remove)
        bridges = {"lan3": "br0", "isp": "br1" if request.param == "two NICs" else "br0"}
        for bridge in sorted(set(bridges.values())):
            here.ip(f"link add {bridge} type bridge")
            here.ip(f"link set {bridge} up")
        for far in (host, isp):
            here.ip(f"link add {far.name} type veth peer name eth0 netns {far.name}")
            here.ip(f"link set {far.name} master {bridges[far.name]} up")
            far.ip("link set eth0 up")
        host.ip(f"addr add {HOSTS['lan3']}/24 dev eth0")
        host.ip(f"route add default via {TAP0}")
        isp.ip(f"addr add {ROUTER}/24 dev eth0")
        isp.ip(f"addr add {OFFLOADED}/32 dev lo")
        text = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
        assert text is not None, "the README shows no configuration"
        configuration = text[1].replace('"br1"', f'"{bridges["isp"]}"') + '[control]\nsocket = "control.sock"\n'
        (tmp_path / "gateway.toml").write_text(configuration)
        (tmp_path / "offload.txt").write_text("0.0.0.0/0\n")
        check = here.python("-m", "bridgectl", "check", "-c", str(tmp_path / "gateway.toml"))
        assert bridges["isp"] in check
        leases = isp.start_python("-m", "lab.leases", f"{TAP1}/24", ROUTER)
        stack.callback(leases.stop)
        assert leases.line() == "ready"
        daemon = start_daemon(here, tmp_path / "gateway.toml")
        stack.callback(daemon.stop)
        await_answer(daemon, tmp_path / "control.sock", "the gateway")
        until(lambda: state_of_lease(tmp_path) == "bound", "tap1 has its lease")
        server = isp.start_python("-m", "lab.peers", "serve", OFFLOADED)
        stack.callback(server.stop)
        assert server.line() == "ready"
        yield host, isp, tmp_path


def test_a_lan_host_reaches_the_internet_as_the_readme_promises(
    machine: tuple[Namespace, Namespace, Path],
) -> None:
    host, _, folder = machine
    printed = host.python("-m", "lab.peers", "transfer", OFFLOADED, "5000000", "5000000")
    assert '"ok": true' in printed
    assert f'"seen_as": "{ROUTER.rpartition(".")[0]}.2:' in printed
    assert '"ok": true' in host.python("-m", "lab.peers", "ping", ROUTER)
    neighbours = request(folder / "control.sock", "arp.show", {})["tables"]
    assert [[entry["ip"] for entry in table["entries"]] for table in neighbours] == [[HOSTS["lan3"]], [ROUTER]]


def test_a_lan_host_reaches_the_world_through_the_tunnel_of_the_readme(bare_lab: Lab) -> None:
    gateway, addition, exit_ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    folder = bare_lab.folder / "exit"
    folder.mkdir()
    keys = [KeyFile(where / "private.key") for where in (bare_lab.folder, folder)]
    texts = []
    for text, other in ((gateway + addition, keys[1]), (exit_, keys[0])):
        text, replaced = re.subn(r'(?<=public_key = ")[^"]+', other.public, text)  # noqa: PLW2901 - the same file
        assert replaced == 1
        text = text.replace("[tunnel]\n", '[tunnel]\nstate_file = "tunnel.json"\n')  # noqa: PLW2901
        texts.append(text.replace("203.0.113.10", OUTER_EXIT) + '[control]\nsocket = "control.sock"\n')
    bare_lab.serve()
    bare_lab.join_outside()
    bare_lab.configure(texts[0])
    (folder / "gateway.toml").write_text(texts[1])
    daemon = start_daemon(bare_lab.namespaces["exit"], folder / "gateway.toml")
    try:
        await_answer(daemon, folder / "control.sock", "the exit")
        bare_lab.start_gateway()
        told = bare_lab.client("lan3", "transfer", TUNNELLED, "1000000", "1000000")
        assert told["ok"]
        assert told["seen_as"].startswith("10.8.0.2:")
        assert peer(bare_lab, "exit")["state"] == "up"
    finally:
        daemon.stop()
        bare_lab.remove_gateway()
