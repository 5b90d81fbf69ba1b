"""The DHCP servers that others wrote, in a namespace of the lab: dnsmasq, kea, isc-dhcp-server, udhcpd.

They are looked for below the virtual environment, where `scripts/install` unpacks them, then on the machine itself.
Installed as packages they would begin to serve this machine's own network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.namespace import Namespace
from lab.process import LabProcess

SERVERS = ("dnsmasq", "kea", "isc-dhcp-server", "udhcpd")
UNPACKED = Path(sys.prefix) / "servers"
_PROGRAMS = {
    "dnsmasq": "usr/sbin/dnsmasq",
    "kea": "usr/sbin/kea-dhcp4",
    "isc-dhcp-server": "usr/sbin/dhcpd",
    "udhcpd": "bin/busybox",  # Debian's udhcpd is a link to it
}
ROUTER, FIRST, LAST = "192.168.1.1", "192.168.1.50", "192.168.1.59"


def program(name: str) -> Path | None:
    """Where a server's program is; None where this machine has none."""
    unpacked = UNPACKED / _PROGRAMS[name]
    if unpacked.exists():
        return unpacked
    found = shutil.which(Path(_PROGRAMS[name]).name if name != "udhcpd" else "udhcpd", path="/usr/sbin:/usr/bin:/sbin")
    return Path(found) if found else None


def needing(name: str) -> None:
    """Skip where this machine has no such server; with CI=true that is a failure, because scripts/install brings it."""
    if program(name) is None:
        assert os.environ.get("CI") != "true", f"scripts/install brings {name}"
        pytest.skip(f"{name} is not here: scripts/install unpacks it where apt-get has it")


class Server:
    """One server on `eth0` of a namespace that has `ROUTER`'s address there. `seconds`: of its leases; dnsmasq gives
    two minutes at least. A server that starts again knows its leases; `forget` takes them away."""

    def __init__(self, name: str, machine: Namespace, folder: Path) -> None:
        found = program(name)
        assert found is not None, "asked before"
        self.name = name
        self._program = found
        self._machine = machine
        self._folder = folder / name
        self._folder.mkdir(exist_ok=True)
        self._process: LabProcess | None = None

    def start(self, *, seconds: int = 120, first: str = FIRST, last: str = LAST, router: str = ROUTER) -> None:
        """Serve a pool of addresses."""
        words = {
            "dnsmasq": self._dnsmasq,
            "kea": self._kea,
            "isc-dhcp-server": self._isc,
            "udhcpd": self._udhcpd,
        }[self.name](seconds, first, last, router)
        self._process = self._machine.start(str(self._program), *words, more=self._environment())

    def stop(self) -> None:
        """End it, as a machine that goes down; its leases stay on disk."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def forget(self) -> None:
        """It has never granted anything."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    @property
    def is_running(self) -> bool:
        """False where it has ended by itself."""
        return self._process is not None and self._process.is_running

    def errors(self) -> str:
        """Its standard error so far."""
        return self._process.errors() if self._process is not None else ""

    def _environment(self) -> Mapping[str, str]:
        libraries = UNPACKED / "usr" / "lib"
        places = [str(place) for place in (libraries / f"{os.uname().machine}-linux-gnu", libraries) if place.is_dir()]
        kea = {f"KEA_{kind}_DIR": str(self._folder) for kind in ("PIDFILE", "LOCKFILE")}
        return {"LD_LIBRARY_PATH": os.pathsep.join(places), **kea}

    def _dnsmasq(self, seconds: int, first: str, last: str, router: str) -> list[str]:
        return [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
            "--interface=eth0",
            "--bind-interfaces",
            "--no-ping",
            "--dhcp-authoritative",
            "--dhcp-sequential-ip",
            "--log-facility=-",
            f"--pid-file={self._folder}/pid",
            f"--dhcp-leasefile={self._folder}/leases",
            f"--dhcp-range={first},{last},255.255.255.0,{max(seconds, 120)}",
            f"--dhcp-option=option:router,{router}",
            f"--dhcp-option=option:dns-server,{router}",
            "--dhcp-option=option:domain-name,isp.example",
        ]

    def _kea(self, seconds: int, first: str, last: str, router: str) -> list[str]:
        options = {"routers": router, "domain-name-servers": router, "domain-name": "isp.example"}
        subnet = {
            "id": 1,
            "subnet": "192.168.1.0/24",
            "pools": [{"pool": f"{first}-{last}"}],
            "option-data": [{"name": name, "data": data} for name, data in options.items()],
        }
        path = self._folder / "kea.json"
        path.write_text(
            json.dumps(
                {
                    "Dhcp4": {
                        "interfaces-config": {"interfaces": ["eth0"], "dhcp-socket-type": "raw"},
                        "lease-database": {"type": "memfile", "name": f"{self._folder}/leases.csv", "lfc-interval": 0},
                        "valid-lifetime": seconds,
                        "authoritative": True,
                        "subnet4": [subnet],
                        "loggers": [
                            {"name": "kea-dhcp4", "output_options": [{"output": "stderr"}], "severity": "INFO"}
                        ],
                    }
                }
            )
        )
        return ["-c", str(path)]

    def _isc(self, seconds: int, first: str, last: str, router: str) -> list[str]:
        path, leases = self._folder / "dhcpd.conf", self._folder / "leases"
        path.write_text(
            f"authoritative; ping-check false; default-lease-time {seconds}; max-lease-time {seconds};\n"
            f"min-lease-time {seconds};\n"
            f"subnet 192.168.1.0 netmask 255.255.255.0 {{ range {first} {last}; option routers {router};\n"
            f'option domain-name-servers {router}; option domain-name "isp.example"; }}\n'
        )
        leases.touch()
        return ["-4", "-d", "-f", "-cf", str(path), "-lf", str(leases), "--no-pid", "eth0"]

    def _udhcpd(self, seconds: int, first: str, last: str, router: str) -> list[str]:
        path, leases = self._folder / "udhcpd.conf", self._folder / "leases"
        path.write_text(
            f"start {first}\nend {last}\ninterface eth0\nlease_file {leases}\npidfile {self._folder}/pid\nauto_time 0\n"
            f"min_lease {seconds}\noption lease {seconds}\noption subnet 255.255.255.0\noption router {router}\n"
            f"option dns {router}\noption domain isp.example\n"
        )
        leases.touch()
        applet = ["udhcpd"] if self._program.name == "busybox" else []
        return [*applet, "-f", str(path)]
