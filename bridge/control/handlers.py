"""From a command of the control socket to its answer: one handler for each question and each change, and `capture`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bridge.control.answers.every import CHANGES, QUESTIONS
from bridge.control.answers.question import Change, Question, Subject
from bridge.control.capture_stream import capture
from bridge.control.children import InFork
from bridge.control.connection import Connection, Handler
from bridge.control.protocol import Document
from bridge.loop.loop import Loop
from bridge.ports.base import PortKind


def handlers_for(subject: Subject, loop: Loop, devices: Mapping[str, PortKind]) -> dict[str, Handler]:
    """Handlers of all commands that concern the gateway alone. `devices`: the kind of each port that is a device."""
    handlers: dict[str, Handler] = {
        command: partial(_answer, question, subject, loop) for command, question in QUESTIONS.items()
    }
    handlers |= {command: partial(_change, change, subject, loop) for command, change in CHANGES.items()}
    handlers["capture"] = partial(_capture, subject, loop, devices)
    return handlers


def _answer(
    question: Question, subject: Subject, loop: Loop, arguments: Document, _client: Connection
) -> Document | InFork:
    now = loop.clock()
    if question.in_fork:
        return InFork(partial(question, subject, arguments, now))
    return question(subject, arguments, now)


def _change(change: Change, subject: Subject, loop: Loop, arguments: Document, _client: Connection) -> Document:
    changed = change(subject, arguments, loop.clock())
    loop.carry_out(changed.effects)
    return changed.document


def _capture(
    subject: Subject, loop: Loop, devices: Mapping[str, PortKind], arguments: Document, client: Connection
) -> None:
    kinds = dict(devices)
    if subject.tunnel is not None:
        kinds |= dict.fromkeys(subject.tunnel.ports, "tun")
    named = arguments.get("port")
    if isinstance(named, str):  # the default node goes by two names
        arguments = {**arguments, "port": subject.gateway.port_of(named)}
    capture(loop, kinds, arguments, client)
