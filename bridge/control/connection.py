"""One connection of the control socket: requests come in by lines, answers and records go out by lines.

States of a connection, and the operations that lead from one to the next:

- *reading*: a whole line arrives, its handler is called. A document that the handler returns is sent at once.
- *awaiting*: the handler returned `InFork` (a child sends the answer) or `None` (the handler has kept the client, and
  calls `answer`, `refuse` or `begin_stream` later). No further request is read meanwhile.
- *streaming*: after `begin_stream`; `record` adds a line until the client leaves.
- *closed*: whatever is sent afterwards goes nowhere.

A client that closes its sending side still gets the answer to what it asked.
"""

from __future__ import annotations

import json
import logging
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from bridge.control.children import OUR_BUG, Children, InFork
from bridge.control.protocol import USAGE, Document, QuestionRefused, answer_line, record_line, refusal_line
from bridge.loop.loop import Loop

log = logging.getLogger(__name__)

LONGEST_REQUEST_BYTES = 64 * 1024
MOST_UNSENT_BYTES = 4 * 1024 * 1024
"""Records of a stream beyond this are lost and counted. An answer is sent whole, however long it is."""
_RECEIVE_BYTES = 64 * 1024

Handler = Callable[[Document, "Connection"], Document | InFork | None]
"""Answers one command. It gets the arguments and the client, and returns the answer, or None to give it later.

It raises `QuestionRefused` for a question that cannot be answered.
"""


class Connection:
    """One connection. `is_awaiting`: an answer is owed or a stream goes on. `last_ns`: when the client last did
    anything. `lost`: records that found no room since the last one that did."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        handlers: Mapping[str, Handler],
        children: Children,
        on_closed: Callable[[int], None],
    ) -> None:
        self.is_awaiting = False
        self.last_ns = loop.clock()
        self.lost = 0
        self.on_close: Callable[[], None] | None = None
        self._loop = loop
        self._handlers = handlers
        self._children = children
        self._on_closed = on_closed
        self._socket = connection
        self._fd = connection.fileno()
        self._received = bytearray()
        self._unsent = bytearray()
        self._events = select.EPOLLIN
        self._is_ended = False
        loop.add(self._fd, self._ready, self._events)

    # For handlers that answer later

    def answer(self, result: Document) -> None:
        """Answer a request that a handler has kept."""
        self._end_request(answer_line(result))

    def refuse(self, refused: QuestionRefused) -> None:
        """Refuse a request that a handler has kept."""
        self._end_request(refusal_line(refused))

    def begin_stream(self, result: Document) -> None:
        """Answer a request, and keep the connection for `record`."""
        self._push(answer_line(result))

    def has_room(self) -> bool:
        """False where the client of a stream reads too slowly: the next record is lost, and counted here, before any
        work is spent on making it."""
        if len(self._unsent) <= MOST_UNSENT_BYTES:
            return True
        self.lost += 1
        return False

    def record(self, document: Document) -> None:
        """Send one record of a stream. Where there is no room the record is lost; the next one that finds room says in
        `lost` how many were."""
        if not self.has_room():
            return
        if self.lost:
            document = {**document, "lost": self.lost}
            self.lost = 0
        self._push(record_line(document))

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        if self._fd < 0:
            return
        self._loop.remove(self._fd)
        self._on_closed(self._fd)
        self._fd = -1
        self._socket.close()
        self._unsent = bytearray()  # up to `MOST_UNSENT_BYTES`, and a streaming handler holds this object for a while
        if self.on_close is not None:
            self.on_close()

    # For children

    def lend(self) -> tuple[socket.socket, bytes] | None:
        """The socket, and what the child has to send in front of its answer; None where the client has left."""
        self._send()
        if self._fd < 0:
            return None
        unsent = bytes(self._unsent)
        self._unsent.clear()
        return self._socket, unsent

    def not_lent(self, unsent: bytes, refused: QuestionRefused) -> None:
        """No child could be made: send here what it should have sent, and the refusal."""
        self._push(unsent)
        self.refuse(refused)

    def take_back(self, *, is_answered: bool) -> None:
        """The child has ended. Without a whole answer the connection is closed, because nobody knows how much of it the
        client has got."""
        if self._fd < 0:
            return
        if not is_answered:
            self.close()
            return
        self.is_awaiting = False
        self._next()

    # The connection

    def _ready(self, events: int) -> None:
        self.last_ns = self._loop.clock()
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
        """Serve the next request that has arrived whole."""
        if self._fd >= 0 and not self.is_awaiting:
            line, newline, rest = self._received.partition(b"\n")
            if len(line) > LONGEST_REQUEST_BYTES:
                self._received.clear()
                self._is_ended = True
                self.refuse(QuestionRefused(USAGE, f"a request has at most {LONGEST_REQUEST_BYTES} bytes"))
            elif newline:
                self._received = rest
                self.is_awaiting = True
                self._serve(bytes(line))
            elif self._is_ended and not self._unsent:
                self.close()
        self._want()

    def _serve(self, line: bytes) -> None:
        """From the line of a request to its answer: command, handler, answer."""
        try:
            command, arguments = _parse(line)
            handler = self._handlers.get(command)
            if handler is None:
                raise QuestionRefused(USAGE, f"there is no command {command!r}")
            answer = handler(arguments, self)
        except QuestionRefused as refused:
            self.refuse(refused)
        except Exception:  # a question that our code fails over does not end the forwarding
            log.exception("a bug while answering %s", line[:200].decode(errors="replace"))
            self.refuse(OUR_BUG)
        else:
            if isinstance(answer, InFork):
                self._children.answer(self, answer)
            elif answer is not None:
                self.answer(answer)

    def _end_request(self, line: bytes) -> None:
        self.is_awaiting = False
        self._push(line)
        self._send()
        if self._fd >= 0 and self._received:
            self._loop.call_later(0, self._next)  # frames first, then the request that waits behind this one

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
        if not self._unsent and self._is_ended and not self.is_awaiting and b"\n" not in self._received:
            self.close()
        self._want()

    def _want(self) -> None:
        """Wait for the events that can help: no reading while an answer is owed, no writing with nothing to say."""
        if self._fd < 0:
            return
        is_reading = not self.is_awaiting and not self._is_ended
        events = (select.EPOLLIN if is_reading else 0) | (select.EPOLLOUT if self._unsent else 0)
        if events != self._events:
            self._events = events
            self._loop.modify(self._fd, events)


def _parse(line: bytes) -> tuple[str, Document]:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QuestionRefused(USAGE, f"the request is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise QuestionRefused(USAGE, "a request is a JSON object")
    command, arguments = document.get("command"), document.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise QuestionRefused(USAGE, 'a request is {"command": "...", "arguments": {...}}')
    return command, arguments
