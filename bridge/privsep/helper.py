"""The gateway's side of the helper: a process that makes the devices, and stays as the warden where one is needed.

The helper starts before the first key is read, as a fresh interpreter, so it holds nothing of ours. It loads its
library while we read the configuration. It gets one order (`bridge.privsep.order`) and the two messages that the warden
knows (`bridge.privsep.messages`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bridge.loop.loop import Loop
from bridge.ports.base import PortError
from bridge.ports.device import DevicePort
from bridge.ports.host_routes import MOST_ENDPOINTS
from bridge.privsep.messages import END, ENDPOINTS, JOINED, OPEN, ORDER, as_file
from bridge.privsep.order import Order

log = logging.getLogger(__name__)

_LONGEST_ANSWER_BYTES = 1 << 16
_LONGEST_NEWS_BYTES = 64
_MOST_PORTS = 8
_ANSWER_S = 30.0
_END_S = 5.0


class Made(NamedTuple):
    """`ports` by name; `gateway_before`: the kernel's next hop before they came up, None where it had none."""

    ports: dict[str, DevicePort]
    gateway_before: str | None


class Helper:
    """The helper process. The constructor starts it, `close` ends it. `on_joined`: called with a port's name when its
    device is in its bridge again, or the bridge has its carrier again."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        modules = str(Path(__file__).resolve().parents[2])
        before = os.environ.get("PYTHONPATH")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bridge.privsep.maker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": modules if not before else f"{modules}{os.pathsep}{before}"},
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is for us; the helper ends with us
            )
        self.on_joined: Callable[[str], None] = lambda _port: None
        self._is_heard = False
        self._pidfd = -1
        self._has_order = False
        self._loop: Loop | None = None

    @property
    def pid(self) -> int:
        """The process id, whether it still runs or not."""
        return self._process.pid

    def make(self, order: Order) -> Made:
        """Have the devices made. Raises `PortError` with every obstacle; then there are no
        devices."""
        self._channel.settimeout(_ANSWER_S)
        self._has_order = True
        try:
            told = as_file(order.packed())
            try:
                socket.send_fds(self._channel, [ORDER], [told])
            finally:
                os.close(told)
            answer, descriptors, _, _ = socket.recv_fds(
                self._channel, _LONGEST_ANSWER_BYTES, _MOST_PORTS, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise PortError(f"the process that makes the devices gave no answer: {error.strerror or error}") from error
        if not answer:
            raise PortError("the process that makes the devices ended; its last words say more")
        document = json.loads(answer)
        if "error" in document:
            raise PortError(document["error"])
        ports = [DevicePort(fd=fd, **facts) for fd, facts in zip(descriptors, document["ports"], strict=True)]
        return Made({port.name: port for port in ports}, document["gateway_before"])

    def watch(self, loop: Loop, *, is_to_stay: bool) -> None:
        """Wait for its end in the loop. If it `is_to_stay`, its end is an error, and logged."""
        self._loop = loop
        self._pidfd = os.pidfd_open(self._process.pid)

        def ended(_events: int) -> None:
            self.unwatch()
            self._process.wait()
            if is_to_stay:
                log.error(
                    "the warden has ended (status %d): bridges that are made again, default routes and reloads are on "
                    "their own until the gateway is restarted",
                    self._process.returncode,
                )

        loop.add(self._pidfd, ended)
        if is_to_stay:
            self._is_heard = True
            loop.add(self._channel.fileno(), self._hear)

    def _hear(self, _events: int) -> None:
        """A message of the warden, or the end of its end."""
        try:
            message = self._channel.recv(_LONGEST_NEWS_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message.startswith(JOINED):
            self.on_joined(message.removeprefix(JOINED).decode(errors="replace"))
        elif not message:
            self._hear_no_more()

    def _hear_no_more(self) -> None:
        if self._is_heard and self._loop is not None:
            self._loop.remove(self._channel.fileno())
        self._is_heard = False

    def open(self, path: Path) -> int:
        """A descriptor of a file or folder of the configuration that only root may read. Raises `OSError` where the
        path is none of those. Any thread and any forked child may ask: each brings a socket of its own for its
        answer."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                socket.send_fds(self._channel, [OPEN + os.fsencode(path)], [theirs.fileno()])
            ours.settimeout(_ANSWER_S)
            answer, descriptors, _, _ = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
        if descriptors:
            return descriptors[0]
        number = int(answer or b"5")  # EIO: the warden has ended meanwhile
        raise OSError(number, os.strerror(number), str(path))

    def lead(self, endpoints: Iterable[bytes]) -> None:
        """Tell the warden the tunnel's IPv4 endpoints, 4 bytes each: it keeps them reachable beside tun0."""
        told = sorted(endpoints)
        if len(told) > MOST_ENDPOINTS:
            log.warning("only %d of %d endpoints get a host route", MOST_ENDPOINTS, len(told))
        try:
            self._channel.send(ENDPOINTS + b"".join(told[:MOST_ENDPOINTS]), socket.MSG_DONTWAIT)
        except OSError as error:
            log.debug("the warden hears of no endpoints: %s", error)

    def unwatch(self) -> None:
        """End `watch`, because the loop is about to end; a second call does nothing."""
        if self._loop is not None:
            self._hear_no_more()
            self._loop.remove(self._pidfd)
            os.close(self._pidfd)
            self._loop = None

    def close(self) -> None:
        """Let it remove the files that it has to remove, and wait for its end."""
        self.unwatch()
        if not self._has_order:
            self._process.kill()  # the start has failed already, and it may still be loading its library
        try:
            self._channel.settimeout(_END_S)
            self._channel.send(END)
        except OSError as error:
            log.debug("the helper has ended: %s", error)
        self._channel.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.warning("the warden does not end by itself")
            with suppress(PermissionError):  # it is root and we are not any more; our own end kills it
                self._process.kill()
                self._process.wait()
