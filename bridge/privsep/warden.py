"""The warden, the helper's second program: a small process that keeps the rights which the gateway gives up.

It has no frame, no socket of the tunnel and no key. It reads nothing but the kernel's news about network devices and
three messages of the gateway. With CAP_NET_ADMIN it

- puts a tap back into its bridge, and up, when that bridge was deleted and made again under its name; a tap that
  somebody took out of the bridge or set down stays as it is;
- tells the gateway (`JOINED`) when it did, and when another port of the bridge gets its carrier back, because the
  network behind it may be another one;
- gives tun0 its two half default routes again when it was set down and up, because the kernel removes them;
- keeps host routes to the tunnel's endpoints (`ENDPOINTS`) while tun0 has the default route: `ports.host_routes`.

If the gateway became another user, the warden stays root with no other capability but reading, and

- opens files for a reload (`OPEN` with a path and a socket to answer on), for reading only: the files that the
  configuration names, and those in its folder;
- removes control socket, lock and the folders made for them at an orderly end (`END`), because only root can.

It ends with the gateway, which closes its end of the pair of sockets; the kernel kills it, too. `bridge.privsep.maker`
executes it in its own place. It imports little, because it lives as long as the gateway does.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import sys
from contextlib import suppress
from typing import Any

from bridge.ports.host_routes import HostRoutes
from bridge.ports.rtnetlink import HALVES, IFF_RUNNING, IFF_UP, RTM_DELLINK, RTM_NEWLINK, LinkNews, Links
from bridge.privsep import landlock, seccomp
from bridge.privsep.messages import END, ENDPOINTS, JOINED, OPEN, read_back
from bridge.privsep.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_NET_ADMIN,
    die_with_parent,
    drop_capabilities,
    forbid_core_dumps,
)

LONGEST_MESSAGE_BYTES = 4096 + len(OPEN)
_TOO_WIDE = ("/", "/etc", "/home", "/root", "/run", "/tmp", "/usr/local/etc", "/var")
_STDERR = 2


class WatchedDevice:
    """One device, and its state that the warden restores. `bridge`: the name of its bridge, None for a device without
    one; `bridge_index`: the kernel's number of the bridge that it was put into, 0 while there is none. `is_default`: it
    has default routes. `has_joined`: the gateway is to hear that the network behind `port` may be another one."""

    def __init__(
        self, links: Links, port: str, interface: str, index: int, bridge: str | None, bridge_index: int
    ) -> None:
        self._links = links
        self.port = port
        self.has_joined = False
        self._without_carrier: set[int] = set()  # other ports of the bridge
        self.interface = interface
        self.index = index
        self.bridge = bridge
        self.bridge_index = bridge_index
        self.is_default = False
        self.was_down = False

    def note(self, news: LinkNews | None) -> None:
        """Note one piece of news. None: some news was lost, so anything may have happened."""
        if news is None:
            self.bridge_index = -1 if self.bridge else 0
            self.was_down = True
        elif news.kind == RTM_DELLINK and news.link == self.bridge_index:
            self.bridge_index = 0
        elif news.kind == RTM_NEWLINK and news.link == self.index and not news.flags & IFF_UP:
            self.was_down = True
        elif news.link != self.index:
            self._hear_of_neighbour(news)

    def _hear_of_neighbour(self, news: LinkNews) -> None:
        """Another link: where it is a port of our bridge its carrier says whether there is a network behind."""
        is_port = news.kind == RTM_NEWLINK and self.bridge_index > 0 and news.master == self.bridge_index
        if is_port and not news.flags & IFF_RUNNING:
            self._without_carrier.add(news.link)
        elif news.link in self._without_carrier:
            self._without_carrier.discard(news.link)
            self.has_joined = self.has_joined or is_port

    def restore(self) -> None:
        """Restore what the news says was lost, once: a change made by hand afterwards stays."""
        if self.bridge is not None:
            found = self._links.index_of(self.bridge)
            was, self.bridge_index = self.bridge_index, found
            if found and found != was:
                self._rejoin(self.bridge, found)
        if self.is_default and self.was_down and self._links.is_up(self.index):
            self.was_down = False
            self._lead_here()

    def _rejoin(self, bridge: str, bridge_index: int) -> None:
        try:
            self._links.join(self.index, bridge_index)
        except OSError as error:
            say("WARNING", f"{self.interface} cannot be put back into {bridge}: {error.strerror}")
        else:
            self.has_joined = True
            say("INFO", f"{bridge} was made again: {self.interface} is back in it, and up")

    def _lead_here(self) -> None:
        try:
            added = [half for half in HALVES if self._links.add_route(half, self.index)]
        except OSError as error:
            say("WARNING", f"{self.interface} was down, and its default routes cannot be made again: {error.strerror}")
        else:
            if added:
                say("INFO", f"{self.interface} was down: it has its default routes again")


class Files:
    """The files that the warden opens for the gateway. `folders`: all that lies in them; `names`: single files, by the
    path that the configuration has for them. System folders are never opened as a whole."""

    def __init__(self, folders: list[str], names: list[str]) -> None:
        self._folders = [real for folder in folders if (real := os.path.realpath(folder)) not in _TOO_WIDE]
        self._names = dict.fromkeys(names)

    def open(self, path: str) -> int:
        """A descriptor for reading a file or listing a folder. Raises `OSError` where the path is not among ours, or
        cannot be opened."""
        real = os.path.realpath(path)
        if not self._covers(path, real):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        found = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            kind = os.fstat(found).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            if os.readlink(f"/proc/self/fd/{found}") != real:  # a folder on the way was exchanged for a link meanwhile
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        except OSError:
            os.close(found)
            raise
        return found

    def _covers(self, path: str, real: str) -> bool:
        """Folders first, then names as they are written, then names resolved: there may be thousands of names, and each
        resolving walks through folders."""
        if any(real == folder or real.startswith(folder + "/") for folder in self._folders):
            return True
        return path in self._names or real in map(os.path.realpath, self._names)


class Warden:
    """`channel`: to the gateway. `devices`: by the socket that brings news about them. `socket_path` and `made`: the
    socket and the folders that are removed at the end. `host_routes`: None where tun0 has no default route here."""

    def __init__(
        self,
        channel: socket.socket,
        devices: dict[Links, list[WatchedDevice]],
        files: Files,
        socket_path: str,
        made: list[str],
        host_routes: HostRoutes | None = None,
    ) -> None:
        self._host_routes = host_routes
        self._channel = channel
        self._devices = devices
        self._files = files
        self._socket_path = socket_path
        self._made = made

    def watch(self) -> None:
        """Serve news and messages until the gateway ends, or says that it is about to."""
        poll = select.poll()
        by_descriptor = {links.fileno(): links for links in self._devices}
        for descriptor in (self._channel.fileno(), *by_descriptor):
            poll.register(descriptor, select.POLLIN)
        routes = self._host_routes
        if routes is not None:
            poll.register(routes.fileno(), select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._channel.fileno():
                    if not self._read_message():
                        return
                elif descriptor in by_descriptor:
                    self._read_news(by_descriptor[descriptor])
                elif routes is not None:
                    routes.read_news()
                    with suppress(OSError):  # no answer in time: the next news asks again
                        routes.renew()

    def _read_news(self, links: Links) -> None:
        devices = self._devices[links]
        for news in links.news():
            for device in devices:
                device.note(news)
        for device in devices:
            with suppress(OSError):  # no answer in time: the next news asks again
                device.restore()
            if device.has_joined:
                device.has_joined = False
                with suppress(OSError):  # the gateway does not read, and will hear of the next time
                    self._channel.send(JOINED + device.port.encode(), socket.MSG_DONTWAIT)

    def _read_message(self) -> bool:
        """Serve one message; False where it was the last one."""
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self._channel, LONGEST_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return False
        if message == END:
            if self._socket_path:
                self._remove()
            return False
        if message.startswith(ENDPOINTS) and self._host_routes is not None:
            with suppress(OSError):  # no answer in time: the next news asks again
                self._host_routes.lead(message.removeprefix(ENDPOINTS))
        elif message.startswith(OPEN) and descriptors:
            self._answer(message.removeprefix(OPEN), descriptors[0])
        elif descriptors:
            os.close(descriptors[0])
        return bool(message)

    def _answer(self, path: bytes, descriptor: int) -> None:
        try:
            reply = socket.socket(fileno=descriptor)
        except OSError:  # it is no socket
            os.close(descriptor)
            return
        with reply:
            self._open(path, reply)

    def _open(self, path: bytes, reply: socket.socket) -> None:
        with suppress(OSError):  # the process that asked may have ended
            reply.setblocking(False)
            try:
                found = self._files.open(os.fsdecode(path))
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else None
                reply.send(b"%d" % (number or errno.EINVAL))
                return
            try:
                socket.send_fds(reply, [b"0"], [found])
            finally:
                os.close(found)

    def _remove(self) -> None:
        """Remove socket and lock, unless another gateway has them by now, then the folders that are empty."""
        lock_path = self._socket_path + ".lock"
        try:
            lock = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock), os.stat(lock_path)):
                return
            with suppress(FileNotFoundError):
                os.unlink(self._socket_path)
            os.unlink(lock_path)
        except FileNotFoundError:
            pass
        except OSError as error:
            say("WARNING", f"{self._socket_path} stays: {error.strerror}")
        for folder in reversed(self._made):
            with suppress(OSError):  # somebody uses it
                os.rmdir(folder)


def say(level: str, text: str) -> None:
    """Write one line in the form of the gateway's log (`bridge.daemon.log`). It is lost where writing would have to
    wait."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    with suppress(OSError):
        if any(events & select.POLLOUT for _, events in poll.poll(0)):
            os.write(_STDERR, f"{level}: warden: {text}\n".encode(errors="backslashreplace"))


def main(words: list[str]) -> int:
    """Be the warden until the gateway ends. `words`: the descriptor of a file with one JSON object, as
    `bridge.privsep.maker` writes it."""
    order = json.loads(read_back(int(words[0])))
    channel = socket.socket(fileno=order["channel"])
    devices: dict[Links, list[WatchedDevice]] = {}
    for group in order["devices"]:
        links = Links.from_descriptors(*group["descriptors"])
        devices[links] = []
        for one in group["devices"]:
            device = WatchedDevice(
                links, one["port"], one["interface"], one["index"], one["bridge"], one["bridge_index"]
            )
            device.is_default = one["is_default"]
            devices[links].append(device)
    host_routes = _open_host_routes(order["devices"])
    duties = order["root_duties"]
    kept = (1 << CAP_NET_ADMIN if devices else 0) | (1 << CAP_DAC_READ_SEARCH if duties else 0)
    drop_capabilities(kept)
    socket_path, made = (duties["socket"], duties["made"]) if duties else ("", [])
    if order["is_confined"]:
        landlock.confine(
            removing=[os.path.dirname(socket_path)] if socket_path else [], folding=map(os.path.dirname, made)
        )
        seccomp.confine(more=seccomp.NO_NETWORK)
    files = Files(duties["folders"], duties["names"]) if duties else Files([], [])
    try:
        Warden(channel, devices, files, socket_path, made, host_routes).watch()
    finally:
        if host_routes is not None:
            with suppress(OSError):  # the next start removes them
                host_routes.remove()
    return 0


def _open_host_routes(groups: list[dict[str, Any]]) -> HostRoutes | None:
    """The host routes beside tun0, where it has the default route of our own network namespace.

    A gateway that is killed takes the warden with it, so the kernel must let it remove the routes before.
    """
    for device in (one for group in groups for one in group["devices"]):
        if device["leads_beside"]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            die_with_parent(signal.SIGTERM)
            return HostRoutes(avoided=device["index"])
    return None


if __name__ == "__main__":
    forbid_core_dumps()
    die_with_parent()
    sys.exit(main(sys.argv[1:]))
