"""The keys of the model with their words (`bridge.config.words`): a reload's limits, and the files that are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bridge.config.model import Config, TomlTable
from bridge.config.words import NamesAFile, NamesAFolder, Restart, Word, WritesAFile, word_of


class Key(NamedTuple):
    """A key of the model. `path`: from the top, with `*` where the file gives a name or number: `peer.*.endpoint`.
    `table`: the model of the table, or of each of the tables, that the key holds; None for a plain value."""

    path: tuple[str, ...]
    field: FieldInfo
    table: type[TomlTable] | None


def keys_of_model(model: type[BaseModel] = Config, above: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key that a configuration file may have, each table before the keys inside it."""
    for name, field in model.model_fields.items():
        table = table_in(field)
        yield Key((*above, name), field, table)
        if table is not None:
            has_several = get_origin(field.annotation) in (dict, tuple)
            yield from keys_of_model(table, (*above, name, "*") if has_several else (*above, name))


def table_in(field: FieldInfo) -> type[TomlTable] | None:
    """The model of the table, or of each of the tables, that a key holds; None for a plain value."""
    waiting: list[object] = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, TomlTable):
            return annotation
        waiting.extend(get_args(annotation))
    return None


def changed_for_good(running: TomlTable, wanted: TomlTable) -> Iterator[str]:
    """The keys that differ between two configurations and need a restart, as `tap0.address`, in the model's order.

    A table that comes or goes is named alone.
    """
    for name, field in type(running).model_fields.items():
        now, then = getattr(running, name), getattr(wanted, name)
        if isinstance(now, TomlTable) and isinstance(then, TomlTable):
            yield from (f"{name}.{key}" for key in changed_for_good(now, then))
            continue
        restart = word_of(field, Restart)
        if restart is None or restart.part(now) == restart.part(then):
            continue
        if not restart.if_written or name in running.model_fields_set | wanted.model_fields_set:
            yield name


def files_named(config: Config) -> Iterator[Path]:
    """The operator's files that a configuration names, and the file itself, each as the configuration spells it."""
    yield config.path
    yield from _paths(config, NamesAFile)


def folders_named(config: Config) -> Iterator[Path]:
    """The operator's folders that a configuration names, and the one that it lies in."""
    yield config.path.parent
    yield from _paths(config, NamesAFolder)


def folders_written(config: Config) -> Iterator[Path]:
    """The folders in which a running gateway replaces files of its own."""
    for path in _paths(config, WritesAFile):
        yield path.parent


def _paths(table: TomlTable, kind: type[Word]) -> Iterator[Path]:
    """The paths under keys that say a word, tables inside this one included."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if word_of(field, kind) is not None:
            yield from (item for item in _items(value) if isinstance(item, Path))
        else:
            for item in _items(value):
                if isinstance(item, TomlTable):
                    yield from _paths(item, kind)


def _items(value: Any) -> Iterator[object]:
    """The values of a key, one by one where it holds several."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, tuple):
        yield from value
    else:
        yield value
