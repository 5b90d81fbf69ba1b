"""The control socket: its protocol, its bounds, and who may use it."""

from __future__ import annotations

import grp
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bridge.control.children import MOST_CHILDREN, InFork
from bridge.control.client import ControlError, NobodyListens, request, stream
from bridge.control.connection import LONGEST_REQUEST_BYTES, MOST_UNSENT_BYTES, Connection, Handler
from bridge.control.protocol import Document, QuestionRefused
from bridge.control.server import IDLE_S, MOST_CLIENTS, ControlServer
from bridge.loop.loop import Loop
from tests.bridge.loop.test_loop import Cable
from wire.units import SECOND_NS

DEADLINE_S = 10.0


class Server:
    """A control server with a few commands in a loop that the tests turn by hand; `now_ns` is the loop's clock."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.sock"
        self.now_ns = SECOND_NS
        self.loop = Loop(Cable(), clock=lambda: self.now_ns)
        self.streaming: list[Connection] = []
        self.waiting: list[Connection] = []
        self.changed = False
        self.unread: dict[socket.socket, bytes] = {}
        handlers: dict[str, Handler] = {
            "echo": lambda arguments, _: arguments,
            "refuse": self._refuse,
            "fail": self._fail,
            "fork": lambda arguments, _: InFork(lambda: self._change(arguments)),
            "fork.refuse": lambda _, __: InFork(self._refuse_in_child),
            "fork.die": lambda _, __: InFork(lambda: os._exit(7)),
            "later": lambda _, client: self.waiting.append(client),
            "stream": self._stream,
        }
        self.control = ControlServer(self.loop, self.path, "", handlers)

    def _refuse(self, _arguments: Document, _client: Connection) -> None:
        raise QuestionRefused(2, "no such port")

    def _refuse_in_child(self) -> Document:
        raise QuestionRefused(2, "no such port in the child")

    def _fail(self, _arguments: Document, _client: Connection) -> None:
        raise AssertionError("a bug")

    def _change(self, arguments: Document) -> Document:
        self.changed = True
        return {"changed": self.changed, "padding": "x" * arguments.get("padding", 0)}

    def _stream(self, arguments: Document, client: Connection) -> None:
        client.begin_stream(arguments)
        client.on_close = lambda: self.streaming.remove(client)
        self.streaming.append(client)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.path))
        connection.setblocking(False)
        return connection

    def turn_until_line(self, connection: socket.socket) -> Any:
        """Turn the loop until a whole line has come, and decode it; None where the server hung up instead."""
        deadline = time.monotonic() + DEADLINE_S
        data = self.unread.pop(connection, b"")
        while b"\n" not in data:
            assert time.monotonic() < deadline, f"no answer: {data[:100]!r}"
            self.loop.turn(0.01)
            try:
                part = connection.recv(1 << 16)
            except BlockingIOError:
                continue
            if not part:
                return None
            data += part
        line, _, self.unread[connection] = data.partition(b"\n")
        return json.loads(line)

    def ask(self, connection: socket.socket, line: bytes | Document) -> Any:
        connection.send(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        return self.turn_until_line(connection)

    def close(self) -> None:
        self.control.close()
        self.loop.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def test_a_request_is_a_line_and_so_is_its_answer_and_the_connection_stays(server: Server) -> None:
    with server.connect() as connection:
        for number in range(2):
            answer = server.ask(connection, {"command": "echo", "arguments": {"n": number}})
            assert answer == {"ok": True, "result": {"n": number}}


def test_requests_sent_together_are_answered_in_order(server: Server) -> None:
    lines = b"".join(b'{"command": "echo", "arguments": {"n": %d}}\n' % number for number in range(3))
    with server.connect() as connection:
        connection.send(lines)
        answers = [server.turn_until_line(connection) for _ in range(3)]
    assert [answer["result"]["n"] for answer in answers] == [0, 1, 2]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"hello\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"[" * 50_000 + b"\n", "no JSON"),
        (b"[]\n", "JSON object"),
        (b'{"command": 7}\n', '"command"'),
        (b'{"command": "echo", "arguments": []}\n', '"command"'),
        (b'{"command": "dance"}\n', "dance"),
        (b'{"command": "refuse"}\n', "no such port"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_code_2_and_the_connection_stays(
    server: Server, line: bytes, says: str
) -> None:
    with server.connect() as connection:
        answer = server.ask(connection, line)
        assert (answer["ok"], answer["code"]) == (False, 2)
        assert says in answer["error"]
        assert server.ask(connection, {"command": "echo"})["ok"]


def test_our_own_bug_is_answered_logged_and_survived(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with server.connect() as connection:
        assert server.ask(connection, {"command": "fail"})["code"] == 1
        assert server.ask(connection, {"command": "echo"})["ok"]
    assert "a bug while answering" in caplog.text


def test_an_endless_request_is_refused(server: Server) -> None:
    with server.connect() as connection:
        sent = 0
        while sent <= LONGEST_REQUEST_BYTES:
            sent += connection.send(b"x" * 8192)
            server.loop.turn(0)
        assert server.turn_until_line(connection)["code"] == 2
        assert server.turn_until_line(connection) is None


def test_a_half_closed_connection_gets_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b'{"command": "echo"}\n')
        connection.shutdown(socket.SHUT_WR)
        assert server.turn_until_line(connection) == {"ok": True, "result": {}}
        assert server.turn_until_line(connection) is None


def test_an_answer_may_come_later(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b'{"command": "later"}\n')
        while not server.waiting:
            server.loop.turn(0.01)
        server.waiting[0].answer({"late": True})
        assert server.turn_until_line(connection)["result"] == {"late": True}


def test_requests_behind_one_that_is_answered_later_are_answered_after_it(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b'{"command": "later"}\n{"command": "echo", "arguments": {"n": 1}}\n')
        while not server.waiting:
            server.loop.turn(0.01)
        server.waiting[0].answer({"late": True})
        assert server.turn_until_line(connection)["result"] == {"late": True}
        assert server.turn_until_line(connection)["result"] == {"n": 1}


def test_requests_of_a_half_closed_connection_are_all_answered(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b"".join(b'{"command": "echo", "arguments": {"n": %d}}\n' % number for number in range(3)))
        connection.shutdown(socket.SHUT_WR)
        answers = [server.turn_until_line(connection) for _ in range(4)]
    assert [answer and answer["result"]["n"] for answer in answers] == [0, 1, 2, None]


def test_an_answer_that_comes_after_the_client_left_goes_nowhere(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b'{"command": "later"}\n')
        while not server.waiting:
            server.loop.turn(0.01)
    server.loop.turn(0.01)
    server.waiting[0].answer({"late": True})


def test_a_child_answers_on_a_snapshot_and_changes_nothing(server: Server) -> None:
    with server.connect() as connection:
        answer = server.ask(connection, {"command": "fork", "arguments": {"padding": 1 << 20}})
        assert answer["result"]["changed"]
        assert len(answer["result"]["padding"]) == 1 << 20
        assert not server.changed
        while server.control.children.running:
            server.loop.turn(0.01)
        assert server.ask(connection, {"command": "echo"})["ok"]


def test_questions_beyond_the_number_of_children_wait_for_their_turn(server: Server) -> None:
    connections = [server.connect() for _ in range(3 * MOST_CHILDREN)]
    for connection in connections:
        connection.send(b'{"command": "fork"}\n')
    most = 0
    for connection in connections:
        assert server.turn_until_line(connection)["ok"]
        most = max(most, server.control.children.running)
        connection.close()
    assert 0 < most <= MOST_CHILDREN


def test_no_child_begins_while_another_thread_is_at_work(server: Server) -> None:
    server.control.children.hold()
    with server.connect() as connection, server.connect() as leaving:
        for one in (leaving, connection):
            one.send(b'{"command": "fork"}\n')
        while server.control.clients < 2:
            server.loop.turn(0.01)
        for _ in range(3):
            server.loop.turn(0.01)
        assert server.control.children.running == 0
        leaving.close()
        server.control.children.release()
        assert server.turn_until_line(connection)["ok"]


def test_clients_that_take_nothing_of_their_answer_do_not_keep_others_from_theirs(server: Server) -> None:
    """Each has a child, of which there are few."""
    long = {"command": "fork", "arguments": {"padding": 4_000_000}}
    hanging = [server.connect() for _ in range(2 * MOST_CHILDREN)]
    for connection in hanging:
        connection.send(json.dumps(long).encode() + b"\n")
    for _ in range(len(hanging)):
        server.loop.turn(0)
    asking = server.connect()
    asking.send(b'{"command": "fork"}\n')
    assert server.turn_until_line(asking)["ok"]
    for connection in (*hanging, asking):
        connection.close()


def test_a_child_refuses_as_its_parent_would(server: Server) -> None:
    with server.connect() as connection:
        answer = server.ask(connection, {"command": "fork.refuse"})
    assert answer == {"ok": False, "code": 2, "error": "no such port in the child"}


def test_a_child_that_dies_ends_the_connection(server: Server) -> None:
    with server.connect() as connection:
        assert server.ask(connection, {"command": "fork.die"}) is None


def test_a_stream_ends_when_its_client_leaves(server: Server) -> None:
    with server.connect() as connection:
        assert server.ask(connection, {"command": "stream", "arguments": {"a": 1}})["result"] == {"a": 1}
        server.streaming[0].record({"n": 1})
        assert server.turn_until_line(connection) == {"n": 1}
    while server.streaming:
        server.loop.turn(0.01)


def test_a_stream_goes_on_for_a_client_that_says_no_more(server: Server) -> None:
    with server.connect() as connection:
        connection.send(b'{"command": "stream"}\n')
        connection.shutdown(socket.SHUT_WR)
        assert server.turn_until_line(connection)["ok"]
        server.streaming[0].record({"n": 1})
        assert server.turn_until_line(connection) == {"n": 1}


def test_a_slow_reader_of_a_stream_loses_records_and_is_told_how_many(server: Server) -> None:
    with server.connect() as connection:
        server.ask(connection, {"command": "stream"})
        record = {"frame": "x" * 50_000}
        for _ in range(MOST_UNSENT_BYTES // 50_000 + 10):
            server.streaming[0].record(record)
        lost = server.streaming[0].lost
        assert lost > 0
        read = 0
        while read < MOST_UNSENT_BYTES:
            server.loop.turn(0)
            try:
                read += len(connection.recv(1 << 20))
            except BlockingIOError:
                break
        server.streaming[0].record({"n": 1})
        last = b""
        while not last.endswith(b'"lost":%d}\n' % lost):
            server.loop.turn(0)
            last = last[-100:] + connection.recv(1 << 20)


def test_a_stream_without_room_says_so_before_a_record_is_made(server: Server) -> None:
    with server.connect() as connection:
        server.ask(connection, {"command": "stream"})
        (client,) = server.streaming
        assert client.has_room()
        client.record({"frame": "x" * MOST_UNSENT_BYTES})
        assert not client.has_room()
        assert client.lost == 1
    while server.streaming:
        server.loop.turn(0.01)
    assert client.has_room(), "a client that has left keeps no records"


def test_clients_beyond_the_bound_are_told_so(server: Server) -> None:
    clients = [server.connect() for _ in range(MOST_CLIENTS)]
    while server.control.clients < MOST_CLIENTS:
        server.loop.turn(0)
    with server.connect() as late:
        assert "connected already" in server.turn_until_line(late)["error"]
    clients.pop().close()
    while server.control.clients == MOST_CLIENTS:
        server.loop.turn(0)
    with server.connect() as next_one:
        assert server.ask(next_one, {"command": "echo"})["ok"]
    for client in clients:
        client.close()


def test_an_idle_client_is_hung_up_on_and_a_waiting_one_is_not(server: Server) -> None:
    with server.connect() as idle, server.connect() as waiting:
        waiting.send(b'{"command": "later"}\n')
        while not server.waiting:
            server.loop.turn(0.01)
        server.now_ns += (IDLE_S + 1) * SECOND_NS
        assert server.turn_until_line(idle) is None
        server.waiting[0].answer({})
        assert server.turn_until_line(waiting)["ok"]


def test_the_socket_is_for_owner_and_group_only_and_goes_with_the_server(server: Server) -> None:
    mode = server.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    server.control.close()
    assert not server.path.exists()


def test_the_group_of_the_configuration_gets_the_socket(tmp_path: Path) -> None:
    ours = grp.getgrgid(os.getgid())
    loop = Loop(Cable())
    server = ControlServer(loop, tmp_path / "s", ours.gr_name, {})
    assert (tmp_path / "s").stat().st_gid == ours.gr_gid
    server.close()
    with pytest.raises(LookupError, match="no-such-group"):
        ControlServer(loop, tmp_path / "s", "no-such-group", {})
    loop.close()


def test_a_stale_socket_is_taken_over_and_anything_else_is_left_alone(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control.sock"))
    stale.close()
    Server(tmp_path).close()
    (tmp_path / "control.sock").write_text("precious")
    loop = Loop(Cable())
    with pytest.raises(FileExistsError):
        ControlServer(loop, tmp_path / "control.sock", "", {})
    loop.close()
    assert (tmp_path / "control.sock").read_text() == "precious"


def test_nobody_behind_the_socket_is_told_from_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(NobodyListens):
        request(tmp_path / "control.sock", "stats")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control.sock"))
    stale.close()
    with pytest.raises(NobodyListens):
        request(tmp_path / "control.sock", "stats")


def test_the_client_side_understands_results_refusals_and_streams(server: Server) -> None:
    outcome: list[object] = []

    def talk() -> None:
        outcome.append(request(server.path, "echo", {"n": 1}))
        try:
            request(server.path, "refuse")
        except ControlError as refusal:
            outcome.append((refusal.code, refusal.message))
        records = stream(server.path, "stream", {"a": 1})
        outcome.extend([next(records), next(records)])
        records.close()

    thread = Thread(target=talk)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while thread.is_alive() and time.monotonic() < deadline:
        server.loop.turn(0.01)
        for client in server.streaming:
            client.record({"n": 2})
    thread.join(0)
    assert outcome == [{"n": 1}, (2, "no such port"), {"a": 1}, {"n": 2}]


def test_a_gateway_that_does_not_answer_is_given_up(server: Server) -> None:
    with pytest.raises(ControlError, match="nothing came"):
        request(server.path, "echo", timeout_s=0.01)
