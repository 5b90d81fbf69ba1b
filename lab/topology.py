"""The whole topology in network namespaces: LAN hosts, the gateway machine, the ISP router, the exit of the tunnel.

    lan3 192.168.200.3 --+                                                        +-- isp 192.168.1.1, 114.114.114.114
    lan4 192.168.200.4 --+-- br0 == tap0  gateway (in namespace gw)  tap1 == br1 --+
                                    tun0  192.168.192.211
                                    vpn0 --(the plain device stands in for the tunnel)-- exit 8.8.8.8

`join_outside` adds a cable for sealed packets, between the machines at both ends of the real tunnel (`lab.wireguard`);
`join_by` puts something else there (`lab.outside`):

    gw 198.51.100.1 == outer == 198.51.100.2 exit

None of them has a way out: there is no link to the namespace that the lab was started in.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bridge.control.client import request
from lab import outside
from lab.daemon import await_answer, watch
from lab.namespace import Namespace
from lab.outside import Between, Cable
from lab.peers import PORT
from lab.private import private_names
from lab.process import COMMAND_S, CommandFailed, LabProcess, run
from lab.readable import let_everyone_run_python

LEASE_S = 20.0
POLL_S = 0.05

HOSTS = {"lan3": "192.168.200.3", "lan4": "192.168.200.4"}
TAP0, TAP1, TUN0, VPN_ALIAS = "192.168.200.2", "192.168.1.2", "192.168.192.211", "192.168.192.210"
ROUTER = "192.168.1.1"
OFFLOADED = "114.114.114.114"
TUNNELLED = "8.8.8.8"
OUTER_GATEWAY, OUTER_EXIT = outside.OUTER_GATEWAY, outside.OUTER_EXIT

CONFIGURATION = f"""\
[tap0]
address = "{TAP0}/24"
bridge = "br0"

[tap1]
address = "{TAP1}/24"
gateway = "{ROUTER}"
bridge = "br1"

[tun0]
address = "{TUN0}/24"
default_route = true

[vpn]
address = "{VPN_ALIAS}"
mtu = 1420
node = "hk"
interface = "vpn0"
netns = "exit"

[offload]
prefixes = ["offload.txt"]

[control]
socket = "control.sock"
"""
B = TypeVar("B", bound=Between)

STATIC_TAP1 = f'address = "{TAP1}/24"\ngateway = "{ROUTER}"\n'
LEASED_TAP1 = 'address = "dhcp"\n'
OFFLOAD_LIST = "114.114.0.0/16 # all that goes by tap1\n"


class Lab:
    """The namespaces by name (`lan3`, `lan4`, `gw`, `isp`, `exit`), a folder for files, and the gateway's process.

    `serve` starts the far ends; `start_gateway` the daemon.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.gateway: LabProcess | None = None
        self._outside: Between | None = None
        self._isp_cable: Between | None = None
        self._stack = stack
        self.namespaces: dict[str, Namespace] = {}
        if "LAB_USER" in os.environ:
            let_everyone_run_python()
        for name in (*HOSTS, "gw", "isp", "exit"):
            self.namespaces[name] = Namespace(name)
            stack.callback(self.namespaces[name].remove)
        stack.callback(self.part_outside)
        stack.callback(self.mend_isp_cable)
        gw, isp = self.namespaces["gw"], self.namespaces["isp"]
        for bridge in ("br0", "br1"):
            gw.ip(f"link add {bridge} type bridge")
            gw.ip(f"link set {bridge} up")
        for name, address in HOSTS.items():
            self._cable(name, "br0")
            self.namespaces[name].ip(f"addr add {address}/24 dev eth0")
            self.namespaces[name].ip(f"route add default via {TAP0}")
        self._cable("isp", "br1")
        isp.ip(f"addr add {ROUTER}/24 dev eth0")
        isp.ip(f"addr add {OFFLOADED}/32 dev lo")
        self.namespaces["exit"].ip(f"addr add {TUNNELLED}/32 dev lo")

    def join_outside(self) -> None:
        """A cable between the gateway's machine and the exit, for the sealed packets: `outer` in both. Where anything
        joins them already, that stays."""
        if self._outside is None:
            self._outside = Cable(*self._outer_ends())

    def join_by(self, make: Callable[[Namespace, Namespace], B]) -> B:
        """Put another thing in place of the cable: `make` gets the namespaces of the gateway's machine and the exit."""
        self.part_outside()
        self._outside = between = make(*self._outer_ends())
        return between

    def part_outside(self) -> None:
        """Take away what joins both machines."""
        if self._outside is not None:
            between, self._outside = self._outside, None
            between.remove()

    def replace_isp_cable(self, make: Callable[[Namespace, Namespace], B]) -> B:
        """Put another thing in place of the ISP router's cable: `make` gets the namespaces of the gateway's machine and
        the ISP router, and joins port `isp` of bridge `br1` to `eth0`."""
        self._cut_isp_cable()
        gw, isp = self.namespaces["gw"], self.namespaces["isp"]
        self._isp_cable = cable = make(gw, isp)
        isp.ip(f"addr add {ROUTER}/24 dev eth0")
        return cable

    def mend_isp_cable(self) -> None:
        """An ordinary cable again, where it is none."""
        if self._isp_cable is not None:
            self._cut_isp_cable()
            self._cable("isp", "br1")
            self.namespaces["isp"].ip(f"addr add {ROUTER}/24 dev eth0")

    def _cut_isp_cable(self) -> None:
        if self._isp_cable is None:
            self.namespaces["gw"].ip("link del isp")
        else:
            cable, self._isp_cable = self._isp_cable, None
            cable.remove()

    def name_hosts(self, addresses: Mapping[str, str]) -> None:
        """Addresses by name, for every program of the lab that asks for one from now on, in place of the machine's own
        /etc/hosts: only the lab's mount namespace sees it."""
        path = self.folder / "hosts"
        is_first = not path.exists()
        path.write_text("".join(f"{address} {name}\n" for name, address in addresses.items()))
        if is_first:
            run(["mount", "--bind", str(path), "/etc/hosts"])

    def _outer_ends(self) -> tuple[Namespace, Namespace]:
        return self.namespaces["gw"], self.namespaces["exit"]

    def _cable(self, name: str, bridge: str) -> None:
        """eth0 in the namespace `name`, its other end a port of a bridge of the gateway machine."""
        gw = self.namespaces["gw"]
        gw.ip(f"link add {name} type veth peer name eth0 netns {name}")
        gw.ip(f"link set {name} master {bridge} up")
        self.namespaces[name].ip("link set eth0 up")

    @property
    def config_path(self) -> Path:
        """The gateway's configuration file."""
        return self.folder / "gateway.toml"

    @property
    def socket_path(self) -> Path:
        """The gateway's control socket."""
        return self.folder / "control.sock"

    def configure(self, configuration: str = CONFIGURATION, offload_list: str = OFFLOAD_LIST) -> None:
        """Write the gateway's files."""
        user = os.environ.get("LAB_USER")  # whom every gateway of the lab becomes, where a test does not say it
        if user and "[process]" not in configuration:
            configuration += f'\n[process]\nuser = "{user}"\n'
        self.config_path.write_text(configuration)
        (self.folder / "offload.txt").write_text(offload_list)

    def start_gateway(self, more: Mapping[str, str] | None = None, program: str | None = None) -> LabProcess:
        """Start the real daemon, wait until it answers, and give the exit its route back. `program`: Python that runs
        it in another way than `bridgectl run`, with the configuration as its argument."""
        run = ["-m", "bridgectl", "run", "-c"] if program is None else ["-c", program]
        words = [sys.executable, *run, str(self.config_path)]
        self.gateway = self.namespaces["gw"].start(*words, more=more)
        self._stack.callback(self.gateway.stop)
        await_answer(self.gateway, self.socket_path, "the gateway")
        if "vpn0" in self.namespaces["exit"].ip("-br link"):
            self.namespaces["exit"].ip("route replace 192.168.192.0/24 dev vpn0")
        return self.gateway

    def stop_gateway(self) -> int:
        """Ask the daemon to end; its exit code."""
        assert self.gateway is not None, "the gateway was never started"
        self.gateway.signal(signal.SIGTERM)
        return self.gateway.wait()

    def remove_gateway(self) -> None:
        """End the daemon, if there is one, whatever state it is in, and forget its links and lists.

        The next test starts another daemon, which is no restart of this one.
        """
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None
        for kept in (".links", ".lists"):
            self.socket_path.with_suffix(kept).unlink(missing_ok=True)

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Ask the daemon over its control socket."""
        return request(self.socket_path, command, arguments)

    def watch(self, port: str) -> Generator[dict[str, Any], None, None]:
        """The frames of a port from now on, see `lab.daemon.watch`."""
        return watch(self.socket_path, port)

    def serve(self) -> None:
        """Start the far ends (`lab.peers`, port 7777): 114.114.114.114, 8.8.8.8 and the LAN hosts. `CommandFailed`
        where one does not listen."""
        for name, address in {"isp": OFFLOADED, "exit": TUNNELLED, **HOSTS}.items():
            peer = self.namespaces[name].start_python("-m", "lab.peers", "serve", address)
            self._stack.callback(peer.stop)
            if peer.line() != "ready":
                raise CommandFailed(f"the peer in {name} does not listen on port {PORT}")

    def serve_leases(self, *words: str) -> LabProcess:
        """Start the ISP router's DHCP server (`lab.leases`), which lends tap1 the address that it has elsewhere.
        `CommandFailed` where it does not begin."""
        server = self.namespaces["isp"].start_python("-m", "lab.leases", f"{TAP1}/24", ROUTER, *words)
        self._stack.callback(server.stop)
        if server.line() != "ready":
            raise CommandFailed("the ISP router's DHCP server does not begin")
        return server

    def await_lease(self) -> dict[str, Any]:
        """Wait until the gateway has its lease, at most `LEASE_S` (then `CommandFailed`); the lease of
        `bridgectl dhcp -j`."""
        deadline = time.monotonic() + LEASE_S
        while time.monotonic() < deadline:
            lease: dict[str, Any] = self.ask("dhcp.show")["lease"]
            if lease["state"] == "bound":
                return lease
            time.sleep(POLL_S)
        raise CommandFailed(f"tap1 has no lease within {LEASE_S:g} s: {lease}")

    def client(self, name: str, *words: str, timeout_s: float = COMMAND_S) -> dict[str, Any]:
        """Run a client of `lab.peers` in a namespace; its document, also where it failed. `CommandFailed`
        without one."""
        printed = self.namespaces[name].python("-m", "lab.peers", *words, check=False, timeout_s=timeout_s)
        try:
            document: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise CommandFailed(f"{' '.join(words)} in {name}:\n{printed}") from error
        return document


@contextmanager
def topology() -> Iterator[Lab]:
    """Build the lab, without a gateway; everything is taken down at the end. `lab.private.Impossible` where this
    machine or this user cannot have it."""
    with private_names(), ExitStack() as stack:
        folder = Path("/run/lab")  # ours alone, and gone with us
        folder.mkdir()
        lab = Lab(folder, stack)
        lab.configure()
        yield lab
