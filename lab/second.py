"""A second instance of ours as the tunnel's other end: the exit role, in the lab's namespace `exit`."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from lab.daemon import await_answer, start_daemon
from lab.other_end import OUR_PORT, OtherEnd
from lab.outside import OUTER_GATEWAY
from lab.process import LabProcess
from lab.topology import TUN0, VPN_ALIAS, Lab

ADDRESS = "192.168.192.1"


class SecondInstance(OtherEnd):
    """A daemon without `[tap0]`: what comes out of the tunnel goes by its tun0 to its machine, and back."""

    what = "a second instance of ours"
    device = "tun0"
    hops = (ADDRESS,)  # as every gateway it lowers the time to live

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._exit = lab.namespaces["exit"]
        self._process: LabProcess | None = None
        self._folder = lab.folder / "exit"
        self._folder.mkdir(exist_ok=True)
        self.socket_path = self._folder / "control.sock"
        self.config_path = self._folder / "gateway.toml"
        for kept in (".links", ".lists"):  # of an instance before this one
            self.socket_path.with_suffix(kept).unlink(missing_ok=True)

    def own_configuration(self) -> str:
        """Its file, with the gateway as its one peer."""
        return (
            f'[tun0]\naddress = "{ADDRESS}/24"\n'
            f'[tunnel]\nname = "{self.name}"\nprivate_key_file = "{self.far.path}"\nlisten_port = {self.port}\n'
            'state_file = "tunnel.json"\n'
            f'[peer.home]\npublic_key = "{self.ours.public}"\nallowed_ips = ["{VPN_ALIAS}/32", "{TUN0}/32"]\n'
            f'endpoint = "{OUTER_GATEWAY}:{OUR_PORT}"\n'
            '[control]\nsocket = "control.sock"\n'
        )

    def start(self, more: Mapping[str, str] | None = None) -> LabProcess:
        """Start it, with `more` in its environment, and wait until it answers."""
        self.config_path.write_text(self.own_configuration())
        self._process = start_daemon(self._exit, self.config_path, more)
        await_answer(self._process, self.socket_path, "the other end")
        return self._process

    @property
    def pid(self) -> int | None:
        """The daemon's."""
        return self._process.pid if self._process is not None else None

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self.stop()

    def stop(self) -> None:
        """Ask it to end; a second call does nothing."""
        if self._process is not None:
            process, self._process = self._process, None
            process.stop()
