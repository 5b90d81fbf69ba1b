"""The control socket: people's questions, answered between two bursts without holding up a frame.

A Unix stream socket, mode 0660. A request is a line of JSON, its answer is one too:

    {"command": "arp.show", "arguments": {"port": "tap0"}}
    {"ok": true, "result": {...}}  or  {"ok": false, "code": 1, "error": "..."}

`code` is the exit code that `bridgectl` ends with. A connection may ask again after its answer. A command that goes
on (`capture`) answers once and then sends a record a line until the client closes.

Everything is bounded: connections, the length of a request, unsent bytes (`bridge.control.connection`), idle time,
children (`bridge.control.children`).
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bridge.control.children import Children
from bridge.control.connection import Connection, Handler
from bridge.control.protocol import FAILED, QuestionRefused, refusal_line
from bridge.loop.listening import Listener
from bridge.loop.loop import Loop
from wire.units import SECOND_NS

MOST_CLIENTS = 64
IDLE_S = 60
_SWEEP_S = 5.0
_LONGEST_PATH_BYTES = 107  # unix(7): sun_path has 108 with its final zero
_FULL = refusal_line(QuestionRefused(FAILED, f"{MOST_CLIENTS} clients are connected already"))


class ControlServer:
    """Listens on `path` and calls the handler of a request's command. `group`: the group that may use the socket, ""
    for the process's own. The caller holds the `InstanceLock` of the path, so a socket file that is there is stale.

    Raises `OSError` where the socket cannot be made, `LookupError` where there is no such group.
    """

    def __init__(
        self, loop: Loop, path: Path, group: str, handlers: Mapping[str, Handler], children: Children | None = None
    ) -> None:
        self.path = path
        self.children = Children(loop) if children is None else children
        self._loop = loop
        self._handlers = handlers
        self._clients: dict[int, Connection] = {}
        self._listener = Listener(loop, _listen(path, group), "the control socket", self._accepted)
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    @property
    def clients(self) -> int:
        """Connections that are open."""
        return len(self._clients)

    def _accepted(self, connection: socket.socket) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            with connection, suppress(OSError):
                connection.send(_FULL)
            return
        fd = connection.fileno()
        self._clients[fd] = Connection(self._loop, connection, self._handlers, self.children, self._forget)

    def _forget(self, fd: int) -> None:
        self._clients.pop(fd, None)

    def _sweep(self) -> None:
        """Close connections that have neither asked nor read for `IDLE_S`."""
        before = self._loop.clock() - IDLE_S * SECOND_NS
        for client in list(self._clients.values()):
            if client.last_ns < before and not client.is_awaiting:
                client.close()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def close(self) -> None:
        """Close every connection and remove the socket file. Where the file's folder is not ours any more, the warden
        removes it (`bridge.privsep.warden`)."""
        self._sweeper.cancel()
        for client in list(self._clients.values()):
            client.close()
        with suppress(PermissionError):
            self.path.unlink(missing_ok=True)
        self._listener.close()


def _listen(path: Path, group: str) -> socket.socket:
    """The listening socket. Nobody else may open it until its group and mode are set."""
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        raise OSError(f"{path}: a socket's path has at most {_LONGEST_PATH_BYTES} bytes")
    try:
        group_id = grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise LookupError(f"there is no group {group!r}") from None
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is no socket; it is left alone")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, -1, group_id)
        path.chmod(0o660)
        listener.listen(MOST_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener
