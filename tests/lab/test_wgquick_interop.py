"""The files that import and export write, taken at their word: by wireguard-go at the far end, and by the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.other_end import FAR_PORT, OUR_PORT
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.topology import TUNNELLED, Lab
from lab.wireguard import DEVICE, FarEnd
from tests.lab.far_end import peer, until

pytestmark = pytest.mark.lab


def bridgectl(lab: Lab, *words: str) -> str:
    return lab.namespaces["gw"].python("-m", "bridgectl", *words)


def take_over(lab: Lab, path: Path) -> None:
    """Have wireguard-go take a file of wg-quick, without what is wg-quick's alone."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("Address", "MTU", "Table"))]
    path.write_text("\n".join(lines) + "\n")
    lab.namespaces["exit"].run("wg", "setconf", DEVICE, str(path))


@pytest.mark.parametrize("psk", [False, True], ids=["without PSK", "with PSK"])
def test_the_file_for_a_peer_joins_wireguard_to_us(wired: Lab, far: FarEnd, psk: bool) -> None:
    wired.configure(far.configuration(endpoint=None, psk=psk))
    path = wired.folder / "far.conf"
    where = f"{OUTER_GATEWAY}:{OUR_PORT}"
    bridgectl(wired, "export", "-c", str(wired.config_path), "--for-peer", "hk", "--endpoint", where, "-o", str(path))
    far.start()
    text = path.read_text()
    assert far.ours.text not in text
    placeholder = next(line for line in text.splitlines() if line.startswith("# PrivateKey"))
    path.write_text(text.replace(placeholder, f"PrivateKey = {far.far.text}\nListenPort = {FAR_PORT}"))
    take_over(wired, path)
    wired.start_gateway()
    wired.namespaces["exit"].run("wg", "set", DEVICE, "peer", far.ours.public, "persistent-keepalive", "1")
    until(lambda: peer(wired)["state"] == "up", "wireguard-go has called")
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    assert wired.ask("peers")["peers"][0]["endpoint"] == f"{OUTER_EXIT}:{FAR_PORT}"


def test_an_imported_file_is_a_host_whose_traffic_goes_through_the_tunnel(wired: Lab, far: FarEnd) -> None:
    far.start(psk=True)
    source = wired.folder / "wg0.conf"
    source.touch(0o600)
    source.write_text(
        f"[Interface]\nPrivateKey = {far.ours.text}\nAddress = 192.168.192.211/24\nListenPort = {OUR_PORT}\n"
        f"[Peer]\n# hk\nPublicKey = {far.far.public}\nPresharedKey = {far.psk.text}\n"
        f"AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {OUTER_EXIT}:{FAR_PORT}\n"
    )
    said = bridgectl(wired, "import", str(source), "-c", str(wired.config_path), "--force")
    assert "::/0 is not taken over" in said
    assert far.ours.text not in said
    text = wired.config_path.read_text().replace("[tunnel]\n", '[tunnel]\nstate_file = "tunnel.json"\n')
    wired.config_path.write_text(text + '\n[control]\nsocket = "control.sock"\n')
    wired.start_gateway()
    assert os.stat(wired.folder / "hk.psk").st_mode & 0o777 == 0o600
    assert "128.0.0.0/1 dev tun0" in wired.namespaces["gw"].ip("route")
    assert wired.client("gw", "ping", TUNNELLED)["ok"]
    assert wired.client("gw", "transfer", TUNNELLED, "1000000", "1000000")["seen_as"].startswith("192.168.192.211:")
