"""Asking a running gateway: the client side of the control socket (protocol: `bridge.control.server`)."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.control.protocol import FAILED, Document, record_line

_RECEIVE_BYTES = 1 << 16


class NobodyListens(Exception):
    """Nobody listens on the socket."""


class ControlError(Exception):
    """The gateway refused or failed, or could not be asked. `code`: the exit code that `bridgectl` ends with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def request(socket_path: Path, command: str, arguments: Document | None = None, timeout_s: float = 30.0) -> Document:
    """Ask one question and wait at most `timeout_s` for its answer.

    Raises `NobodyListens` where no gateway runs, `ControlError` where it refuses, fails or stays silent.
    """
    with _connected(socket_path, timeout_s) as connection:
        _send(connection, command, arguments)
        return _result(next(_lines(connection), None))


def stream(
    socket_path: Path, command: str, arguments: Document | None = None, record_timeout_s: float | None = None
) -> Generator[Document, None, None]:
    """The answer of a command that goes on, then each of its records; the iterator ends when the gateway does.

    The answer has 30 s to come, a record `record_timeout_s` (None: as long as it takes). Close the iterator to end the
    stream. Raises as `request` does.
    """
    with _connected(socket_path, 30.0) as connection:
        _send(connection, command, arguments)
        lines = _lines(connection)
        yield _result(next(lines, None))
        connection.settimeout(record_timeout_s)
        yield from map(json.loads, lines)


@contextmanager
def _connected(socket_path: Path, timeout_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(socket_path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise NobodyListens(f"no gateway answers on {socket_path}") from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise ControlError(
                    FAILED, f"{socket_path}: permission denied; root and the group of control.group may"
                ) from error
            raise ControlError(FAILED, f"{socket_path}: {error.strerror or error}") from error
        try:
            yield connection
        except TimeoutError as error:
            raise ControlError(FAILED, f"nothing came from the gateway on {socket_path} in time") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ControlError(FAILED, f"the gateway on {socket_path} hung up") from error


def _send(connection: socket.socket, command: str, arguments: Document | None) -> None:
    connection.sendall(record_line({"command": command, "arguments": arguments or {}}))


def _lines(connection: socket.socket) -> Iterator[bytes]:
    pending: list[bytes] = []
    while received := connection.recv(_RECEIVE_BYTES):
        first, *others = received.split(b"\n")
        pending.append(first)
        for part in others:
            yield b"".join(pending)
            pending = [part]


def _result(line: bytes | None) -> Document:
    if line is None:
        raise ControlError(FAILED, "the gateway hung up before it answered")
    answer = json.loads(line)
    if not answer["ok"]:
        raise ControlError(int(answer["code"]), str(answer["error"]))
    result: Document = answer["result"]
    return result
