"""WireGuard as the tunnel's other end, in the lab's namespace `exit`.

The kernel's where it has one, else wireguard-go of Debian's packages; `wg` sets up and shows both.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from lab.namespace import Namespace
from lab.other_end import FAR_PORT, OUR_PORT, OtherEnd
from lab.outside import OUTER_GATEWAY
from lab.private import Impossible
from lab.process import CommandFailed, LabProcess
from lab.topology import TUNNELLED, Lab

DEVICE = "wg0"
_INSIDE = "192.168.192.0/24"
_READY_S = 10.0
_POLL_S = 0.02


def kernel_has_wireguard(namespace: Namespace) -> bool:
    """Whether the kernel is an end of such a tunnel by itself."""
    try:
        namespace.ip("link add wgtest type wireguard")
    except CommandFailed:
        return False
    namespace.ip("link del wgtest")
    return True


def demand_wireguard(lab: Lab, *, in_kernel: bool = True) -> None:
    """`Impossible` where the programs are missing that a `FarEnd` needs."""
    is_enough = in_kernel and kernel_has_wireguard(lab.namespaces["exit"])
    wanted = ["wg"] if is_enough else ["wireguard-go", "wg"]
    missing = [program for program in wanted if shutil.which(program) is None]
    if missing:
        raise Impossible(f"{' and '.join(missing)} cannot be had (Debian: wireguard-go, wireguard-tools)")


class FarEnd(OtherEnd):
    """One WireGuard device: `start` it or let it `call`, and look at it with `shown`. Several may run in `exit`, each
    with a `device`, a port and an address of its own. `in_kernel`: the kernel's where it has one, else wireguard-go."""

    what = "wireguard-go"

    def __init__(
        self,
        lab: Lab,
        *,
        name: str = "hk",
        device: str = DEVICE,
        port: int = FAR_PORT,
        serves: str = TUNNELLED,
        beside: OtherEnd | None = None,
        in_kernel: bool = True,
    ) -> None:
        super().__init__(lab, name=name, port=port, serves=serves, beside=beside)
        self._in_kernel = in_kernel and kernel_has_wireguard(lab.namespaces["exit"])
        self.device = device
        self._exit = lab.namespaces["exit"]
        self._process: LabProcess | None = None
        self._runs = False

    def start(self, *, endpoint: str | None = None, psk: bool = False, keepalive: int = 0) -> None:
        """Start it, with us as its one peer; without an endpoint of ours it waits for our call."""
        if self._in_kernel:
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
                raise CommandFailed(f"wireguard-go does not start\n{self._process.errors()}")
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

    def kill(self) -> None:
        """End it as a crash does, where it is a program."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
        self.stop()

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
