"""Forked children that work out long answers on a snapshot of the process.

Operations:

- `answer`: a question waits in a queue, and a child answers it when its turn comes.
- `hold` and `release`: while another thread is at work no child begins, because a child would inherit that thread's
  locks and nobody would ever release them.

At most `MOST_CHILDREN` run at a time. The kernel kills a child after `CHILD_S`, and when the gateway ends. A client
that takes nothing of its answer for `STALLED_MS` loses its child, so that others get theirs.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

from bridge.control.protocol import FAILED, Document, QuestionRefused, answer_line, refusal_line
from bridge.loop.affinity import roam
from bridge.loop.loop import Loop
from bridge.privsep.privileges import die_with_parent

log = logging.getLogger(__name__)

MOST_CHILDREN = 4
CHILD_S = 10
STALLED_MS = 1000

OUR_BUG = QuestionRefused(FAILED, "the gateway failed over this request; its log says more")
"""The answer where our own code fails over a question."""


class InFork(NamedTuple):
    """An answer that a child works out: `work` takes long, or changes what it looks at, or both.

    `work` runs in the child alone, on a snapshot of the process; nothing that it changes reaches the gateway.
    """

    work: Callable[[], Document]


class Asking(Protocol):
    """A client as a child needs it (`bridge.control.connection.Connection`)."""

    def lend(self) -> tuple[socket.socket, bytes] | None:
        """The connection, and the bytes that have to go out before the answer; None where the client has left."""

    def take_back(self, *, is_answered: bool) -> None:
        """The child has ended. `is_answered`: the client has its whole answer, and may ask again."""

    def not_lent(self, unsent: bytes, refused: QuestionRefused) -> None:
        """There is no child: the bytes come back, and the question is refused."""


class Children:
    """The queue of questions, and the children that answer. It holds at most one question of each client."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._questions: deque[tuple[Asking, InFork]] = deque()
        self._is_holding = False
        self.running = 0

    def answer(self, client: Asking, question: InFork) -> None:
        """Let a child answer the client as soon as there is room for one."""
        self._questions.append((client, question))
        self._begin_more()

    def hold(self) -> None:
        """Begin no child until `release`."""
        self._is_holding = True

    def release(self) -> None:
        """Let children begin again."""
        self._is_holding = False
        self._begin_more()

    def _begin_more(self) -> None:
        while self._questions and self.running < MOST_CHILDREN and not self._is_holding:
            client, question = self._questions.popleft()
            lent = client.lend()
            if lent is not None:
                self._begin(client, question, *lent)

    def _begin(self, client: Asking, question: InFork, connection: socket.socket, unsent: bytes) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            says = f"no process can be made to answer this: {error.strerror}"
            client.not_lent(unsent, QuestionRefused(FAILED, says))
            return
        if pid == 0:
            _work_in_child(question.work, connection, unsent)
        self.running += 1
        pidfd = os.pidfd_open(pid)

        def ended(_events: int) -> None:
            self._loop.remove(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            self.running -= 1
            self._begin_more()
            client.take_back(is_answered=status == 0)

        self._loop.add(pidfd, ended)


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
            answer = answer_line(work())
        except QuestionRefused as refused:
            answer = refusal_line(refused)
        except Exception:  # the client hears of our bug; a child has nobody else to tell
            log.exception("a bug while answering")
            answer = refusal_line(OUR_BUG)
        left = memoryview(unsent + answer)
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        while left and poll.poll(STALLED_MS):
            left = left[connection.send(left) :]
        status = 1 if left else 0
    finally:
        os._exit(status)
