"""WireGuard as the tunnel's other end, in the lab's namespace `exit`.

The kernel's where it has one, else wireguard-go of Debian's packages; `wg` sets up and shows both.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

from lab.namespace import Namespace
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.private import Impossible
from lab.process import Failed, Process
from lab.topology import CONFIGURATION, TUNNELLED, Lab
from tunnel.primitives import public_key

OUR_PORT, FAR_PORT = 51820, 51821
DEVICE = "wg0"
_INSIDE = "192.168.192.0/24"
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


def kernel_has_wireguard(namespace: Namespace) -> bool:
    """Whether the kernel is an end of such a tunnel by itself."""
    try:
        namespace.ip("link add wgtest type wireguard")
    except Failed:
        return False
    namespace.ip("link del wgtest")
    return True


def demand_wireguard(lab: Lab) -> None:
    """`Impossible` where the programs are missing."""
    wanted = ["wg"] if kernel_has_wireguard(lab.namespaces["exit"]) else ["wireguard-go", "wg"]
    missing = [program for program in wanted if shutil.which(program) is None]
    if missing:
        raise Impossible(f"{' and '.join(missing)} cannot be had (Debian: wireguard-go, wireguard-tools)")


class FarEnd:
    """The other end: `start` it or let it `call`, and look at it with `shown`.

    Several may run in `exit`: each has its own `device`, `port` and the address `serves` that it is the way to; `name`
    is what the gateway calls it. Its keys are fresh, and so is the gateway's unless it is one `beside` another.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        name: str = "hk",
        device: str = DEVICE,
        port: int = FAR_PORT,
        serves: str = TUNNELLED,
        beside: FarEnd | None = None,
    ) -> None:
        lab.join_outside()
        self.name, self.device, self.port, self.serves = name, device, port, serves
        self._exit = lab.namespaces["exit"]
        self._process: Process | None = None
        self._runs = False
        self.ours: KeyFile = KeyFile(lab.folder / "private.key") if beside is None else beside.ours
        self.far = KeyFile(lab.folder / f"{name}.key")
        self.psk = KeyFile(lab.folder / f"{name}.psk")

    def configuration(
        self, *, endpoint: str | None = f"{OUTER_EXIT}:{FAR_PORT}", psk: bool = False, keepalive: int = 0
    ) -> str:
        """The gateway's configuration, with the far end as its default node."""
        return (
            CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', "").replace('"hk"', f'"{self.name}"')
            + f'\n[tunnel]\nprivate_key_file = "{self.ours.path}"\nlisten_port = {OUR_PORT}\n'
            + 'state_file = "tunnel.json"\n'
            + self.table("0.0.0.0/0", endpoint=endpoint, psk=psk, keepalive=keepalive)
        )

    def table(self, allowed: str, *, endpoint: str | None, psk: bool = False, keepalive: int = 0) -> str:
        """Its table in the gateway's configuration."""
        return (
            f'[peer.{self.name}]\npublic_key = "{self.far.public}"\nallowed_ips = ["{allowed}"]\n'
            + (f'endpoint = "{endpoint}"\n' if endpoint else "")
            + (f'preshared_key_file = "{self.psk.path.name}"\n' if psk else "")
            + (f"persistent_keepalive = {keepalive}\n" if keepalive else "")
        )

    def start(self, *, endpoint: str | None = None, psk: bool = False, keepalive: int = 0) -> None:
        """Start it, with us as its one peer; without an endpoint of ours it waits for our call."""
        if kernel_has_wireguard(self._exit):
            self._exit.ip(f"link add {self.device} type wireguard")
        else:
            self._start_program()
        self._runs = True
        words = ["listen-port", str(self.port), "private-key", str(self.far.path)]
        words += ["peer", self.ours.public, "allowed-ips", _INSIDE]
        if endpoint is not None:
            words += ["endpoint", endpoint]
        if psk:
            words += ["preshared-key", str(self.psk.path)]
        if keepalive:
            words += ["persistent-keepalive", str(keepalive)]
        self._exit.run("wg", "set", self.device, *words)
        self._exit.ip(f"link set {self.device} mtu 1420 up")
        if self.serves == TUNNELLED:
            self._exit.ip(f"route replace {_INSIDE} dev {self.device}")
        else:  # what one end answers must not leave by another
            self._exit.ip(f"addr replace {self.serves}/32 dev lo")
            self._exit.ip(f"rule add from {self.serves} lookup {self.port}")
            self._exit.ip(f"route replace {_INSIDE} dev {self.device} table {self.port}")

    def _start_program(self) -> None:
        self._process = self._exit.start("wireguard-go", "-f", self.device, more={"LOG_LEVEL": "error"})
        deadline = time.monotonic() + _READY_S
        while not self._socket.exists():
            if not self._process.is_running or time.monotonic() > deadline:
                raise Failed(f"wireguard-go does not start\n{self._process.errors()}")
            time.sleep(_POLL_S)

    @property
    def _socket(self) -> Path:
        return Path(f"/run/wireguard/{self.device}.sock")

    def call(self, *, psk: bool = False, keepalive: int = 1) -> None:
        """Start it so that it calls us."""
        self.start(endpoint=f"{OUTER_GATEWAY}:{OUR_PORT}", psk=psk, keepalive=keepalive)

    def listen_on(self, port: int) -> None:
        """Bind to another port, as a program does that hears of a new network: it keeps a source address otherwise,
        also one that is gone."""
        self._exit.run("wg", "set", self.device, "listen-port", str(port))

    def shown(self, what: str) -> str:
        """A value of `wg show` for its one peer, behind the peer's key."""
        return self._exit.run("wg", "show", self.device, what).split("\t", 1)[1].strip()

    def stop(self) -> None:
        """End it; the device goes with it."""
        if not self._runs:
            return
        self._runs = False
        if self.serves != TUNNELLED:
            self._exit.ip(f"rule del from {self.serves}")
        if self._process is None:
            self._exit.ip(f"link del {self.device}")
            return
        self._process.stop()
        self._process = None
        self._socket.unlink(missing_ok=True)
