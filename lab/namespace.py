"""Network namespaces and what runs in them. No shell: commands are lists of words."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path

from bridge.ports.namespace import entered
from lab.process import COMMAND_S, LabProcess, run

_SIOCETHTOOL = 0x8946
_ETHTOOL_SETTERS = (0x17, 0x19, 0x1F, 0x24, 0x2C)  # tx checksum, scatter-gather, TSO, GSO, GRO (linux/ethtool.h)


class Namespace:
    """One of the names below /run/netns (see `lab.private`), made with its loopback up and without IPv6, so that the
    kernel says nothing that nobody asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        run(["ip", "netns", "add", name])
        with entered(name):
            for scope in ("all", "default"):
                path = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                if path.exists():
                    path.write_text("1")
        self.ip("link set lo up")

    def command(self, *words: str) -> list[str]:
        """The words that run a command in here; it dies with the process that started it."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "setpriv", "--pdeathsig", "KILL", "--", *words]

    def run(self, *words: str, check: bool = True, timeout_s: float = COMMAND_S) -> str:
        """Run a command to its end, as `lab.process.run`."""
        return run(self.command(*words), check=check, timeout_s=timeout_s)

    def ip(self, line: str) -> str:
        """`ip` with the words of `line`."""
        return run(["ip", "-n", self.name, *line.split()])

    def python(self, *words: str, check: bool = True, timeout_s: float = COMMAND_S) -> str:
        """Run `python WORDS` with the project's modules."""
        return self.run(sys.executable, *words, check=check, timeout_s=timeout_s)

    def start(self, *words: str, more: Mapping[str, str] | None = None, listens: bool = False) -> LabProcess:
        """Start a command that goes on; `more` for its environment, `listens` where it is talked to."""
        return LabProcess(self.command(*words), more, listens=listens)

    def start_python(self, *words: str, listens: bool = False) -> LabProcess:
        """Start `python WORDS` with the project's modules."""
        return self.start(sys.executable, *words, listens=listens)

    def switch_offloads_off(self, interface: str) -> None:
        """Make a device compute every checksum and send no super-frame: a receiver behind it then verifies checksums
        instead of trusting partial ones."""
        with entered(self.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            for command in _ETHTOOL_SETTERS:
                value = array("I", [command, 0])
                fcntl.ioctl(handle, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), value.buffer_info()[0]))

    def remove(self) -> None:
        """Take the name away; the namespace goes when nobody is in it any more."""
        run(["ip", "netns", "del", self.name], check=False)
