"""Links that have changed since somebody wrote them down, in the order of their first change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Changes(Generic[Item]):
    """`is_wanted`: False while nobody writes anything down; then nothing is kept here. It is for reading."""

    __slots__ = ("_items", "is_wanted")

    def __init__(self) -> None:
        self._items: dict[Item, None] = {}
        self.is_wanted = False

    def want(self, is_wanted: bool) -> None:
        """Somebody writes changes down from now on, or nobody does any more. It begins anew."""
        self.is_wanted = is_wanted
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def note(self, item: Item) -> None:
        """An item has changed, while that `is_wanted`; it keeps its place where it is here already."""
        self._items[item] = None

    def take(self, limit: int) -> list[Item]:
        """The first `limit` items, which are no longer here."""
        taken = list(islice(self._items, limit))
        for item in taken:
            del self._items[item]
        return taken
