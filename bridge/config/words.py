"""Words that a key of the configuration says of itself, beside its type: `Annotated[AbsolutePath, NamesAFile(), ...]`.

`bridge.config.keys` reads them, so no other module lists keys by name. Every key says whether a reload takes it over
(`Restart` or `Reloads`), and every key that holds a path says whose the file is (`NamesAFile`, `NamesAFolder`,
`WritesAFile` or `OpensAtStart`); a test walks the model and refuses a key without these words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic.fields import FieldInfo

_Kind = TypeVar("_Kind", bound="Word")


class Word:
    """A word of a key. Words are frozen values and mean nothing to pydantic."""


@dataclass(frozen=True, slots=True)
class Restart(Word):
    """The value is built into devices, sockets or threads: a reload that changes it is refused.

    Of an optional table: the table cannot come or go. `part`: only a change of this part of the value needs a restart.
    `if_written`: a value that neither file writes down never does; it is made from other values, and the one in use
    stays.
    """

    part: Callable[[object], object] = lambda value: value
    if_written: bool = False


@dataclass(frozen=True, slots=True)
class Reloads(Word):
    """A reload takes the new value over at once."""


@dataclass(frozen=True, slots=True)
class NamesAFile(Word):
    """A file of the operator's. The warden opens it where the gateway's user may not."""


@dataclass(frozen=True, slots=True)
class NamesAFolder(Word):
    """A folder of the operator's files. The warden opens all files in it where the gateway's user may not."""


@dataclass(frozen=True, slots=True)
class WritesAFile(Word):
    """A file that the gateway replaces while it runs: Landlock leaves its folder writable."""


@dataclass(frozen=True, slots=True)
class OpensAtStart(Word):
    """A file or socket of the gateway's own that is opened once, before rights are given up."""


@dataclass(frozen=True, slots=True)
class InWgQuick(Word):
    """A file of wg-quick can say the same. `bridgectl export` tells every other key that is written as lost."""


@dataclass(frozen=True, slots=True)
class NotInATunnel(Word):
    """Of a table: it says nothing about a tunnel, so `bridgectl export` leaves it out in silence."""


@dataclass(frozen=True, slots=True)
class Example(Word):
    """A value as TOML writes it. The message about a missing key shows it, so every required key has one."""

    text: str


def word_of(field: FieldInfo, kind: type[_Kind]) -> _Kind | None:
    """The word of a kind that a key says of itself; None where it says none."""
    return next((word for word in field.metadata if isinstance(word, kind)), None)
