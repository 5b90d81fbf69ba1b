"""Steady two-way traffic whose every loss is seen, for the lab alone: `python -m trials.traffic.lasting WORD ...`.

    serve ADDRESS FILE          echoes UDP and TCP on PORT of an address of this host; prints `ready`; of each datagram
                                FILE gets a record (`ARRIVAL`)
    talk HOST STREAM RATE FILE  RATE numbered datagrams a second, and a TCP connection with a few bytes beside each of
                                them, until a line comes on standard input; FILE gets a record of each thing that
                                happens (`EVENT`); then prints what became of the connection
    hold HOST PORT              a TCP connection from a source port; at first, and whenever a line comes on standard
                                input, it sends a little and prints `whole` when that is back, else the error

All clocks of one machine agree, so records of both sides can be laid beside each other. STREAM is a number that tells
one talker's datagrams from another's. Files are written at once: who reads them knows how far the traffic is, and can
wait for the next hundred datagrams where a program would otherwise sleep.
"""

from __future__ import annotations

import errno
import hashlib
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from io import FileIO
from pathlib import Path
from typing import NamedTuple, TextIO

PORT = 7790
ARRIVAL = struct.Struct("!IQQ")
"""At the server: stream, number, when (monotonic ns)."""
EVENT = struct.Struct("!BQQ")
"""At the talker: a `TalkerEventKind`, its number, when (monotonic ns)."""
_DATAGRAM = struct.Struct("!IQ")
_BLOCK = random.Random(7790).randbytes(1 << 16)
_CHUNK_BYTES = 1 << 16
_HELD_BYTES = 1 << 18
"""Of a connection, on its way back: the server reads no more meanwhile."""
_PIECE_BYTES = 1024
_QUIET_NS = 400_000_000
_CONNECTION_END_S = 60.0
_CONNECT_S = 20.0
_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class TalkerEventKind(IntEnum):
    """The kind of an event at a talker."""

    SENT = 0
    """A datagram left; its number."""
    REFUSED = 1
    """The talker's own kernel did not take one; its number."""
    ANSWERED = 2
    """An echo; its number."""
    TOLD = 3
    """An ICMP error about an earlier datagram; the errno."""
    STREAMED = 4
    """Bytes came back by TCP; how many so far."""
    BROKEN = 5
    """The connection failed; the errno."""


class TalkerEvent(NamedTuple):
    """A record of a talker."""

    kind: TalkerEventKind
    number: int
    at_ns: int


class StreamArrival(NamedTuple):
    """A record of the server."""

    stream: int
    number: int
    at_ns: int


def events(path: Path, start: int = 0) -> list[TalkerEvent]:
    """The events that a talker has written, from the record `start` on."""
    return [TalkerEvent(TalkerEventKind(kind), number, at_ns) for kind, number, at_ns in _records(path, EVENT, start)]


def arrivals(path: Path, stream: int) -> list[StreamArrival]:
    """The arrivals of a stream that a server has seen."""
    return [one for one in map(StreamArrival._make, _records(path, ARRIVAL, 0)) if one.stream == stream]


def _records(path: Path, record: struct.Struct, start: int) -> Iterator[tuple[int, ...]]:
    with path.open("rb") as file:
        file.seek(start * record.size)
        data = file.read()
    return record.iter_unpack(data[: len(data) // record.size * record.size])


# The server


class _Held:
    """Bytes to send back by a connection. `is_last`: no more come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_last = False


def serve(address: str, path: str) -> None:
    """See above; until it is killed."""
    listener = socket.create_server((address, PORT), backlog=64)
    listener.setblocking(False)
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    _widen(echo)
    echo.bind((address, PORT))
    echo.setblocking(False)
    held: dict[socket.socket, _Held] = {}
    with Path(path).open("wb", buffering=0) as records:
        print("ready", flush=True)
        while True:
            reading = [one for one, back in held.items() if len(back.data) < _HELD_BYTES and not back.is_last]
            writing = [one for one, back in held.items() if back.data]
            readable, writable, _ = select.select([listener, echo, *reading], writing, [])
            for ready in readable:
                if ready is echo:
                    _echo(echo, records)
                elif ready is listener:
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    held[connection] = _Held()
                else:
                    _exchange(ready, held, is_read=True)
            for ready in writable:
                if ready in held:
                    _exchange(ready, held, is_read=False)


def _widen(datagrams: socket.socket) -> None:
    """Room for what comes while this process has to wait for a processor."""
    try:
        datagrams.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:  # in a user namespace
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)


def _echo(echo: socket.socket, records: FileIO) -> None:
    try:
        datagram, source = echo.recvfrom(256)
        stream, number = _DATAGRAM.unpack(datagram)
        records.write(ARRIVAL.pack(stream, number, time.monotonic_ns()))
        echo.sendto(datagram, source)
    except OSError:  # an ICMP error about an earlier one
        return


def _exchange(connection: socket.socket, held: dict[socket.socket, _Held], *, is_read: bool) -> None:
    back = held[connection]
    try:
        if is_read:
            data = connection.recv(_CHUNK_BYTES)
            back.data += data
            back.is_last = not data
        else:
            del back.data[: connection.send(back.data)]
        is_over = back.is_last and not back.data
    except OSError:
        is_over = True
    if is_over:
        del held[connection]
        connection.close()


# The talker


class Talker:
    """See above. A connection that breaks is not made again: that it broke is the news."""

    def __init__(self, host: str, stream: int, rate: float, path: Path) -> None:
        self._stream, self._pause_ns = stream, round(1e9 / rate)
        self._records = path.open("wb", buffering=0)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        _widen(self._datagrams)
        self._datagrams.connect((host, PORT))
        self._datagrams.setblocking(False)
        self._sent = self._got = 0  # bytes by TCP
        self._digests = hashlib.sha256(), hashlib.sha256()
        self._unsent = bytearray()
        self._error: str | None = None
        self._connection: socket.socket | None = None
        try:
            self._connection = socket.create_connection((host, PORT), timeout=_CONNECT_S)
            self._connection.setblocking(False)
        except OSError as error:
            self._broke(error)

    def _record(self, kind: TalkerEventKind, number: int) -> int:
        now = time.monotonic_ns()
        self._records.write(EVENT.pack(kind, number, now))
        return now

    def _broke(self, error: OSError) -> None:
        self._error = errno.errorcode.get(error.errno or 0, str(error))
        self._record(TalkerEventKind.BROKEN, error.errno or 0)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def talk(self) -> None:
        """Until there is something on standard input."""
        began_ns, number = time.monotonic_ns(), 0
        while True:
            while (now := time.monotonic_ns()) >= began_ns + number * self._pause_ns:
                self._send(number)
                number += 1
            self._wait((began_ns + number * self._pause_ns - now) / 1e9, sys.stdin)
            if self._is_told:
                return

    _is_told = False

    def _send(self, number: int) -> None:
        try:
            self._datagrams.send(_DATAGRAM.pack(self._stream, number))
            self._record(TalkerEventKind.SENT, number)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH):  # about an earlier one; this one did not leave
                self._record(TalkerEventKind.TOLD, error.errno)
            self._record(TalkerEventKind.REFUSED, number)
        if self._connection is not None and len(self._unsent) < _HELD_BYTES:
            at = number % (len(_BLOCK) - _PIECE_BYTES)
            self._unsent += _BLOCK[at : at + _PIECE_BYTES]

    def _wait(self, seconds: float, *others: TextIO) -> bool:
        """One look at what comes, after at most `seconds`; False where nothing came."""
        reading: list[socket.socket | TextIO] = [self._datagrams, *others]
        writing: list[socket.socket] = []
        if self._connection is not None:
            reading.append(self._connection)
            if self._unsent:
                writing.append(self._connection)
        readable, writable, _ = select.select(reading, writing, [], max(seconds, 0))
        if sys.stdin in readable and others:
            self._is_told = True
        if self._datagrams in readable:
            self._hear()
        if self._connection is not None and self._connection in readable:
            self._take()
        if self._connection is not None and self._connection in writable:
            self._give()
        return self._datagrams in readable

    def _hear(self) -> None:
        try:
            stream, number = _DATAGRAM.unpack(self._datagrams.recv(256))
        except OSError as error:
            self._record(TalkerEventKind.TOLD, error.errno or 0)
            return
        if stream == self._stream:
            self._record(TalkerEventKind.ANSWERED, number)

    def _take(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except OSError as error:
            self._broke(error)
            return
        if not data:
            self._broke(ConnectionResetError(errno.ECONNRESET, "the end, before ours"))
            return
        self._got += len(data)
        self._digests[1].update(data)
        self._record(TalkerEventKind.STREAMED, self._got)

    def _give(self) -> None:
        assert self._connection is not None
        try:
            count = self._connection.send(self._unsent)
        except OSError as error:
            self._broke(error)
            return
        self._digests[0].update(self._unsent[:count])
        self._sent += count
        del self._unsent[:count]

    def finish(self) -> dict[str, object]:
        """Wait for what is still on its way; the document about the connection."""
        quiet_ns = time.monotonic_ns() + _QUIET_NS
        while (left_ns := quiet_ns - time.monotonic_ns()) > 0:
            if self._wait(left_ns / 1e9):
                quiet_ns = time.monotonic_ns() + _QUIET_NS
        if self._connection is not None:
            self._end_connection(self._connection)
        is_whole = self._error is None and self._digests[0].digest() == self._digests[1].digest()
        return {"ok": is_whole, "sent": self._sent, "got": self._got, "error": self._error}

    def _end_connection(self, connection: socket.socket) -> None:
        connection.settimeout(_CONNECTION_END_S)
        try:
            connection.sendall(self._unsent)
            self._digests[0].update(self._unsent)
            self._sent += len(self._unsent)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(_CHUNK_BYTES):
                self._got += len(data)
                self._digests[1].update(data)
        except OSError as error:
            self._broke(error)


def hold(host: str, port: int) -> None:
    """See above."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(("", port))
        connection.settimeout(_CONNECT_S)
        while True:
            print(_exchange_once(connection, (host, PORT)), flush=True)
            if not sys.stdin.readline():
                return


def _exchange_once(connection: socket.socket, remote: tuple[str, int]) -> str:
    try:
        with suppress(OSError):  # it is connected already, or it says so once more
            connection.connect(remote)
        connection.sendall(_BLOCK[:_PIECE_BYTES])
        data = b""
        while len(data) < _PIECE_BYTES and (part := connection.recv(_PIECE_BYTES - len(data))):
            data += part
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "whole" if data == _BLOCK[:_PIECE_BYTES] else "cut off"


def main(words: list[str]) -> int:
    """The command line."""
    if words[0] == "serve":
        serve(words[1], words[2])
    elif words[0] == "hold":
        hold(words[1], int(words[2]))
    else:
        host, stream, rate, path = words[1:]
        talker = Talker(host, int(stream), float(rate), Path(path))
        talker.talk()
        print(json.dumps(talker.finish()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
