"""The forms of a question, of a change, and of their subject; helpers that several answers share.

A question says beside its function whether it is answered in a fork:

    @question("arp.show", in_fork=True)  # a table may be long
    def show(subject: Subject, arguments: Arguments, now: int) -> Document:
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from bridge.control.protocol import USAGE, VERSION, Document, QuestionRefused
from bridge.walk.effects import Effect
from bridge.walk.gateway import Gateway
from wire.units import SECOND_NS, address_int

if TYPE_CHECKING:
    from bridge.config.model import Config
    from bridge.ports.udp.segmentation import Segmentation
    from bridge.vpn.ciphers import Cores
    from bridge.vpn.port import VpnPort

Arguments = Mapping[str, Any]
"""The arguments of a question: any JSON object, as it came from the socket. Nothing in it is checked yet."""


@dataclass
class Subject:
    """The gateway that is asked about, and the tunnel that a running one may have. `cores` seal for `tunnel`;
    `segmentation`: whether runs of its datagrams pass the kernel in one piece.

    `config` is the configuration that the gateway runs with; a reload puts the next one in its place. None: nobody asks
    for peers.
    """

    gateway: Gateway
    tunnel: VpnPort | None = None
    cores: Cores | None = None
    segmentation: Segmentation | None = None
    config: Config | None = None


class ChangeAnswer(NamedTuple):
    """The answer to a change, and the effects that its caller has to carry out."""

    document: Document
    effects: list[Effect]


Asked: TypeAlias = Callable[[Subject, Arguments, int], Document]
Acted: TypeAlias = Callable[[Subject, Arguments, int], ChangeAnswer]


@dataclass(frozen=True)
class Question:
    """A command that only looks. `in_fork`: a daemon answers it in a child, on a snapshot of the process, because the
    answer may be long or because working it out changes the gateway that it looks at.

    Called with a subject, arguments and the time in ns it gives the document, or raises `QuestionRefused`.
    """

    command: str
    function: Asked
    in_fork: bool

    def __call__(self, subject: Subject, arguments: Arguments, now: int) -> Document:
        """The answer."""
        return self.function(subject, arguments, now)


@dataclass(frozen=True)
class Change:
    """A command that changes the gateway, so it is answered in the gateway's own process, at once.

    Called with a subject, arguments and the time in ns it gives `ChangeAnswer`, or raises `QuestionRefused` and has
    changed nothing.
    """

    command: str
    function: Acted

    def __call__(self, subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
        """Change what the arguments say."""
        return self.function(subject, arguments, now)


def question(command: str, *, in_fork: bool = False) -> Callable[[Asked], Question]:
    """Decorate the function that answers `command`."""
    return lambda function: Question(command, function, in_fork)


def change(command: str) -> Callable[[Acted], Change]:
    """Decorate the function that carries `command` out."""
    return lambda function: Change(command, function)


def document(**keys: Any) -> Document:
    """An answer with these keys."""
    return {"version": VERSION, **keys}


def lists_of(subject: Subject) -> list[Document]:
    """Each list with the number of its prefixes. `copy_of`: the date of the last good copy where that is in use in
    place of the file, else null."""
    if subject.config is None:
        return []
    found = subject.config.prefix_files
    return [
        {"file": one.name, "prefixes": len(one.entries), "copy_of": found.copy_of(one)}
        for one in (*found.offload, *found.nodes.values())
    ]


def address_of(arguments: Arguments, key: str = "ip") -> int:
    """The IPv4 address that stands under a key; `QuestionRefused` where none does."""
    try:
        return address_int(str(arguments.get(key, "")))
    except ValueError as error:
        raise QuestionRefused(USAGE, str(error)) from error


def seconds(duration_ns: int) -> float:
    """A duration in seconds, to the millisecond, never negative."""
    return round(max(duration_ns, 0) / SECOND_NS, 3)
