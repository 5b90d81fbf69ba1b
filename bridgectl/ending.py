"""The end of commands that go on: Ctrl-C or SIGTERM ends them, with their work finished and exit code 0."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Run the block until it ends, or until SIGINT or SIGTERM. A signal leaves the block by an exception, so that files
    are flushed and the terminal is restored. SIGINT is caught even if the shell that started us ignores it."""
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
