"""The steps of a demonstration as they run: each with its time, its checks, and the checks that failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from lab.flows import PacketFlow


class DemoSteps:
    """Prints each step and each check to `console`. `failures` holds the words of the checks that failed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failures: list[str] = []
        self._began = time.monotonic()

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Say what begins, and how long it took."""
        began = time.monotonic()
        self.console.print(f"[bold]==[/] {words} ...", highlight=False)
        yield
        self.console.print(f"   done in {time.monotonic() - began:.1f} s", style="dim", highlight=False)

    def check(self, held: bool, words: str) -> None:
        """Say whether something held; the exit code remembers."""
        self.console.print(f"   {'[green]ok[/]    ' if held else '[red]FAILED[/]'} {words}", highlight=False)
        if not held:
            self.failures.append(words)

    def show_hops(self, flow: PacketFlow, hops: Sequence[tuple[str, str]]) -> None:
        """A flow at its four hops: (port, `source -> destination`)."""
        places = ("request", "beyond", "reply there", "reply")
        for place, (port, ends) in zip(places, hops, strict=False):
            self.console.print(f"   {flow.name:16}{place:12} {port:5} {ends}", highlight=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began
