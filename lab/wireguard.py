"""wireguard-go as the tunnel's other end, in the lab's namespace `exit`: Debian's packages, no kernel module needed."""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.private import Impossible
from lab.process import Failed, Process
from lab.topology import CONFIGURATION, Lab
from tunnel.primitives import public_key

OUR_PORT, FAR_PORT = 51820, 51821
DEVICE = "wg0"
_READY_S = 10.0
_POLL_S = 0.02


class KeyFile:
    """A fresh key in a file with mode 0600; `public` belongs to it."""

    def __init__(self, path: Path) -> None:
        key = os.urandom(32)
        self.path = path
        self.text = base64.b64encode(key).decode()
        self.public = base64.b64encode(public_key(key)).decode()
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.text + "\n")


def demand_wireguard() -> None:
    """`Impossible` where the programs are missing."""
    missing = [program for program in ("wireguard-go", "wg") if shutil.which(program) is None]
    if missing:
        raise Impossible(f"{' and '.join(missing)} cannot be had (Debian: wireguard-go, wireguard-tools)")


class FarEnd:
    """The other end: `start` it, `set_peer`, and look at it with `shown`."""

    def __init__(self, lab: Lab) -> None:
        lab.join_outside()
        self._lab = lab
        self._exit = lab.namespaces["exit"]
        self._process: Process | None = None
        self.ours = KeyFile(lab.folder / "private.key")
        self.far = KeyFile(lab.folder / "far.key")
        self.psk = KeyFile(lab.folder / "hk.psk")

    def configuration(
        self, *, endpoint: str | None = f"{OUTER_EXIT}:{FAR_PORT}", psk: bool = False, keepalive: int = 0
    ) -> str:
        """The gateway's configuration, with the far end as its default node `hk`."""
        return (
            CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', "")
            + f'\n[tunnel]\nprivate_key_file = "{self.ours.path}"\nlisten_port = {OUR_PORT}\n'
            + 'state_file = "tunnel.json"\n'
            + f'[peer.hk]\npublic_key = "{self.far.public}"\nallowed_ips = ["0.0.0.0/0"]\n'
            + (f'endpoint = "{endpoint}"\n' if endpoint else "")
            + ('preshared_key_file = "hk.psk"\n' if psk else "")
            + (f"persistent_keepalive = {keepalive}\n" if keepalive else "")
        )

    def start(self, *, endpoint: str | None = None, psk: bool = False, keepalive: int = 0) -> None:
        """Start it, with us as its one peer; without an endpoint of ours it waits for our call."""
        self._process = self._exit.start("wireguard-go", "-f", DEVICE, more={"LOG_LEVEL": "error"})
        deadline = time.monotonic() + _READY_S
        while not Path(f"/run/wireguard/{DEVICE}.sock").exists():
            if not self._process.is_running or time.monotonic() > deadline:
                raise Failed(f"wireguard-go does not start\n{self._process.errors()}")
            time.sleep(_POLL_S)
        words = ["listen-port", str(FAR_PORT), "private-key", str(self.far.path)]
        words += ["peer", self.ours.public, "allowed-ips", "192.168.192.0/24"]
        if endpoint is not None:
            words += ["endpoint", endpoint]
        if psk:
            words += ["preshared-key", str(self.psk.path)]
        if keepalive:
            words += ["persistent-keepalive", str(keepalive)]
        self._exit.run("wg", "set", DEVICE, *words)
        self._exit.ip(f"link set {DEVICE} mtu 1420 up")
        self._exit.ip(f"route replace 192.168.192.0/24 dev {DEVICE}")

    def call(self, *, psk: bool = False, keepalive: int = 1) -> None:
        """Start it so that it calls us."""
        self.start(endpoint=f"{OUTER_GATEWAY}:{OUR_PORT}", psk=psk, keepalive=keepalive)

    def listen_on(self, port: int) -> None:
        """Bind to another port, as a program does that hears of a new network: it keeps a source address otherwise,
        also one that is gone."""
        self._exit.run("wg", "set", DEVICE, "listen-port", str(port))

    def shown(self, what: str) -> str:
        """A value of `wg show` for its one peer, behind the peer's key."""
        return self._exit.run("wg", "show", DEVICE, what).split("\t", 1)[1].strip()

    def stop(self) -> None:
        """End it; the device goes with it."""
        if self._process is not None:
            self._process.stop()
            self._process = None
            Path(f"/run/wireguard/{DEVICE}.sock").unlink(missing_ok=True)
