"""How commands that go on end: by Ctrl-C or SIGTERM, with their work put away and exit code 0."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Do the block until it is done, or until SIGINT or SIGTERM; both leave it by an exception, so that files are
    flushed and terminals put back. Also where the shell that started us in the background ignores SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, _interrupt) for number in numbers]
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
