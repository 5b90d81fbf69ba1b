"""The control socket: people's questions, answered between two bursts without holding up a frame.

A Unix stream socket, mode 0660. A request is a line of JSON, its answer is one too:

    {"command": "arp.show", "arguments": {"port": "tap0"}}
    {"ok": true, "result": {...}}  or  {"ok": false, "code": 1, "error": "..."}

`code` is the exit code that `bridgectl` ends with. A connection may ask again after its answer. A command that goes
on (`capture`) answers once and then sends a record a line until the client closes.

Everything is bounded: connections, the length of a request, unsent bytes, idle time. What may take long, or may change
what it looks at, runs in a forked child on a snapshot of the process (`Client.answer_from_fork`).
"""

from __future__ import annotations

import grp
import json
import logging
import os
import select
import signal
import socket
import stat
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bridge.control.client import ControlError, Document
from bridge.loop.affinity import roam
from bridge.loop.listening import Listener
from bridge.loop.loop import Loop
from bridge.privsep.privileges import die_with_parent
from wire.units import SECOND_NS

log = logging.getLogger(__name__)

MOST_CLIENTS = 64
MOST_CHILDREN = 4
LONGEST_REQUEST_BYTES = 64 * 1024
MOST_UNSENT_BYTES = 4 * 1024 * 1024
"""Records of a stream beyond this are lost and counted. An answer is sent whole, however long it is."""
IDLE_S = 60
CHILD_S = 10
STALLED_MS = 1000
"""A client that has a child for its answer and takes nothing for so long is hung up on: others wait for the child."""
_SWEEP_S = 5.0
_RECEIVE_BYTES = 64 * 1024
_LONGEST_PATH_BYTES = 107

Handler = Callable[[Document, "Client"], None]
"""Answers a request by one call of `Client.answer`, `fail` or `answer_from_fork`, now or later."""


class ControlServer:
    """Listens on `path` and calls the handler of a request's command. `group`: the group that may use the socket, ""
    for the process's own. The caller holds the `InstanceLock` of the path: a socket file that is there is stale.

    `OSError` where the socket cannot be made, `LookupError` where there is no such group.
    """

    def __init__(self, loop: Loop, path: Path, group: str, handlers: Mapping[str, Handler]) -> None:
        self.loop = loop
        self.path = path
        self.handlers = handlers
        self.children = 0
        self._questions: deque[tuple[Client, Callable[[], Document]]] = deque()  # at most one of each client
        self._is_holding = False
        self._clients: dict[int, Client] = {}
        self._listener = Listener(loop, _listen(path, group), "the control socket", self._welcome)
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def _welcome(self, connection: socket.socket) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            with connection, suppress(OSError):
                connection.send(_FULL)
            return
        self._clients[connection.fileno()] = Client(self, connection)

    def _sweep(self) -> None:
        """Close connections that neither ask nor read for a while."""
        before = self.loop.clock() - IDLE_S * SECOND_NS
        for client in list(self._clients.values()):
            if client.last_ns < before and not client.is_awaiting:
                client.close()
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)

    @property
    def clients(self) -> int:
        """Connections that are open."""
        return len(self._clients)

    def ask_child(self, client: Client, work: Callable[[], Document]) -> None:
        """Let a child answer the client, in its turn: there are `MOST_CHILDREN` at a time."""
        self._questions.append((client, work))
        self._go_on()

    def hold(self) -> None:
        """Begin no child until `release`: another thread is at work, and its locks would stay locked in a child."""
        self._is_holding = True

    def release(self) -> None:
        """Children may begin again."""
        self._is_holding = False
        self._go_on()

    def child_ended(self) -> None:
        """There is room for another one."""
        self.children -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._questions and self.children < MOST_CHILDREN and not self._is_holding:
            client, work = self._questions.popleft()
            if client.fork(work):
                self.children += 1

    def forget(self, fd: int) -> None:
        """A client has closed."""
        self._clients.pop(fd, None)

    def close(self) -> None:
        """Close every connection and remove the socket file, which is the warden's to do where it is not ours to."""
        self._sweeper.cancel()
        for client in list(self._clients.values()):
            client.close()
        with suppress(PermissionError):
            self.path.unlink(missing_ok=True)
        self._listener.close()


def _listen(path: Path, group: str) -> socket.socket:
    """The listening socket. It is nobody else's until its group and mode stand."""
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


class Client:
    """One connection. `is_awaiting`: a request is being answered or a stream goes on, and no other one is read."""

    def __init__(self, server: ControlServer, connection: socket.socket) -> None:
        self.is_awaiting = False
        self.last_ns = server.loop.clock()
        self.lost = 0
        self.on_close: Callable[[], None] | None = None
        self._server = server
        self._socket = connection
        self._fd = connection.fileno()
        self._received = bytearray()
        self._unsent = bytearray()
        self._events = select.EPOLLIN
        self._is_ended = False
        server.loop.add(self._fd, self._ready, self._events)

    # What handlers call

    def answer(self, result: Document) -> None:
        """End the request with a result."""
        self.is_awaiting = False
        self._push(_line({"ok": True, "result": result}))
        self._send()

    def fail(self, code: int, message: str) -> None:
        """End the request with an error."""
        self.is_awaiting = False
        self._push(_failure(code, message))
        self._send()

    def begin_stream(self, result: Document) -> None:
        """Answer, and keep the connection for `record`."""
        self._push(_line({"ok": True, "result": result}))

    def has_room(self) -> bool:
        """False where the client of a stream reads too slowly: the record that would come next is lost, and counted,
        before anything was spent on making it."""
        if len(self._unsent) <= MOST_UNSENT_BYTES:
            return True
        self.lost += 1
        return False

    def record(self, document: Document) -> None:
        """One record of a stream; where there is no room for it it is lost, and the next one says how many were."""
        if not self.has_room():
            return
        if self.lost:
            document = {**document, "lost": self.lost}
            self.lost = 0
        self._push(_line(document))

    def answer_from_fork(self, work: Callable[[], Document]) -> None:
        """Let a child do the work on a snapshot of this process and write the answer itself; it has `CHILD_S`. It
        begins when its turn comes."""
        self._server.ask_child(self, work)

    def fork(self, work: Callable[[], Document]) -> bool:
        """Begin the child; False where there is none, because the client has left or the kernel refuses."""
        server = self._server
        self._send()  # nothing of an earlier answer may be left: the child writes behind it
        if self._fd < 0:
            return False
        try:
            pid = os.fork()
        except OSError as error:
            self.fail(1, f"no process can be made to answer this: {error.strerror}")
            server.loop.call_later(0, self._next)
            return False
        if pid == 0:
            _work_in_child(work, self._socket, bytes(self._unsent))
        self._unsent.clear()
        pidfd = os.pidfd_open(pid)

        def ended(_events: int) -> None:
            server.loop.remove(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            server.child_ended()
            if self._fd < 0:
                return
            if status:
                self.close()  # it was killed over its answer: there is no telling what the client has got
                return
            self.is_awaiting = False
            self._next()

        server.loop.add(pidfd, ended)
        return True

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        if self._fd < 0:
            return
        self._server.loop.remove(self._fd)
        self._server.forget(self._fd)
        self._fd = -1
        self._socket.close()
        self._unsent = bytearray()  # up to `MOST_UNSENT_BYTES`; whoever streams still holds this object for a while
        if self.on_close is not None:
            self.on_close()

    # The connection

    def _ready(self, events: int) -> None:
        self.last_ns = self._server.loop.clock()
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
            return
        if events & select.EPOLLOUT:
            self._send()
        if self._fd >= 0 and events & select.EPOLLIN:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._is_ended = not data  # the client may still read: a half-closed connection gets its answer
        self._received += data
        self._next()

    def _next(self) -> None:
        """Take up the next request that has arrived whole."""
        if self._fd >= 0 and not self.is_awaiting:
            line, newline, rest = self._received.partition(b"\n")
            if len(line) > LONGEST_REQUEST_BYTES:
                self._received.clear()
                self._is_ended = True
                self.fail(2, f"a request has at most {LONGEST_REQUEST_BYTES} bytes")
            elif newline:
                self._received = rest
                self.is_awaiting = True
                self._serve(bytes(line))
                if self._fd >= 0 and not self.is_awaiting and self._received:
                    self._server.loop.call_later(0, self._next)  # frames first, then the next request
            elif self._is_ended and not self._unsent:
                self.close()
        self._want()

    def _serve(self, line: bytes) -> None:
        try:
            command, arguments = _parse(line)
            handler = self._server.handlers.get(command)
            if handler is None:
                raise ControlError(2, f"there is no command {command!r}")
            handler(arguments, self)
        except ControlError as refusal:
            self.fail(refusal.code, refusal.message)
        except Exception:  # a question that we fail over does not end the forwarding
            log.exception("a bug while answering %s", line[:200].decode(errors="replace"))
            self.fail(1, "the gateway failed over this request; its log says more")

    def _push(self, data: bytes) -> None:
        if self._fd < 0:
            return
        self._unsent += data
        self._want()

    def _send(self) -> None:
        if self._fd < 0:
            return
        try:
            while self._unsent:
                sent = self._socket.send(memoryview(self._unsent)[:_RECEIVE_BYTES])
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._unsent and self._is_ended and not self.is_awaiting:
            self.close()
        self._want()

    def _want(self) -> None:
        """Wait for what can go on: no reading while a request is answered, no writing with nothing to say."""
        if self._fd < 0:
            return
        is_reading = not self.is_awaiting and not self._is_ended
        events = (select.EPOLLIN if is_reading else 0) | (select.EPOLLOUT if self._unsent else 0)
        if events != self._events:
            self._events = events
            self._server.loop.modify(self._fd, events)


def _parse(line: bytes) -> tuple[str, Document]:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(2, f"the request is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ControlError(2, "a request is a JSON object")
    command, arguments = document.get("command"), document.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ControlError(2, 'a request is {"command": "...", "arguments": {...}}')
    return command, arguments


def _line(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _failure(code: int, message: str) -> bytes:
    return _line({"ok": False, "code": code, "error": message})


_FULL = _failure(1, f"{MOST_CLIENTS} clients are connected already")


def _work_in_child(work: Callable[[], Document], connection: socket.socket, unsent: bytes) -> NoReturn:
    """The child's whole life. It shares the connection's flags with the parent, so it stays non-blocking and polls."""
    roam()
    status = 1
    try:
        die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(CHILD_S)
        try:
            answer = _line({"ok": True, "result": work()})
        except ControlError as refusal:
            answer = _failure(refusal.code, refusal.message)
        except Exception:  # whoever asked hears of it; a child has nobody else to tell
            log.exception("a bug while answering")
            answer = _failure(1, "the gateway failed over this request; its log says more")
        left = memoryview(unsent + answer)
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        while left and poll.poll(STALLED_MS):
            left = left[connection.send(left) :]
        status = 1 if left else 0
    finally:
        os._exit(status)
