"""Every key of the model says of itself what it needs, and the words decide."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Annotated

import pytest

from bridge.config import model as config_model
from bridge.config.keys import Key, files_named, folders_named, folders_written, keys_of_model
from bridge.config.load import read
from bridge.config.model import Config, TomlTable
from bridge.config.values import AbsolutePath, OptionalFile
from bridge.config.words import (
    Example,
    NamesAFile,
    NamesAFolder,
    OpensAtStart,
    Reloads,
    Restart,
    WritesAFile,
    word_of,
)

KEYS = list(keys_of_model())
OF_A_PATH = (NamesAFile, NamesAFolder, WritesAFile, OpensAtStart)


def missing_words(key: Key) -> list[str]:
    """The words that a key owes and does not say, each as a sentence."""
    owed = []
    is_always_there = key.table is not None and isinstance(key.field.default, key.table)
    changes = [kind for kind in (Restart, Reloads) if word_of(key.field, kind)]
    if len(changes) != (0 if is_always_there else 1):
        owed.append("Restart or Reloads")
    holds_a_path = key.table is None and "Path" in str(key.field.annotation)
    if holds_a_path and len([kind for kind in OF_A_PATH if word_of(key.field, kind)]) != 1:
        owed.append("whose file it is")
    if key.field.is_required() and word_of(key.field, Example) is None:
        owed.append("Example")
    return owed


def test_every_key_says_what_it_needs() -> None:
    assert len(KEYS) > 80
    assert {".".join(key.path): owed for key in KEYS if (owed := missing_words(key))} == {}


def test_a_table_among_several_can_not_ask_for_a_restart() -> None:
    assert [key.path for key in KEYS if "*" in key.path and word_of(key.field, Restart)] == []


class _Careless(TomlTable):
    """A table whose author forgot the words."""

    timeout: int = 5
    said: Annotated[int, Reloads()] = 5
    both: Annotated[int, Reloads(), Restart()] = 5
    log_file: Annotated[AbsolutePath | None, Reloads()] = None
    state_file: Annotated[OptionalFile | None, Restart(), WritesAFile()] = None
    needed: Annotated[str, Reloads()]


def test_a_new_key_without_its_words_is_caught() -> None:
    owed = {key.path[0]: missing_words(key) for key in keys_of_model(_Careless)}
    assert {name: words for name, words in owed.items() if words} == {
        "timeout": ["Restart or Reloads"],
        "both": ["Restart or Reloads"],
        "log_file": ["whose file it is"],
        "needed": ["Example"],
    }


def tables() -> list[type[TomlTable]]:
    return [Config, *dict.fromkeys(key.table for key in KEYS if key.table is not None)]


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.__name__)
def test_every_key_has_its_docstring(table: type[TomlTable]) -> None:
    tree = ast.parse(inspect.getsource(config_model))
    (own,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == table.__name__)
    told = {
        node.target.id
        for node, following in zip(own.body, own.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    }
    assert set(table.model_fields) - told == set()


WHOLE = """\
[tap0]
address = "192.168.200.2/24"
[tun0]
address = "10.9.0.1/24"
[offload]
prefixes = ["lists/a.txt", "/elsewhere/b.txt"]
[tunnel]
private_key_file = "keys/own"
routes = "nodes"
state_file = "state/stamps"
[peer.hk]
preshared_key_file = "keys/hk"
[peer.de]
preshared_key_file = "/secret/de"
[alias]
state_file = "state/links"
[hooks]
up = "up.sh"
"""


def test_the_files_and_folders_that_a_configuration_names_are_found_by_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "nodes").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    text = WHOLE.replace("/elsewhere", str(tmp_path))
    (tmp_path / "b.txt").write_text("")
    config = read(text, tmp_path / "gateway.toml", "replay")
    assert list(files_named(config)) == [
        *(tmp_path / name for name in ("gateway.toml", "lists/a.txt", "b.txt", "keys/own", "keys/hk")),
        Path("/secret/de"),
        tmp_path / "up.sh",
    ]
    assert list(folders_named(config)) == [tmp_path, tmp_path / "nodes"]
    assert list(folders_written(config)) == [tmp_path / "state"]


def test_a_list_beside_a_configuration_with_a_relative_path_is_named_once_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "list.txt").write_text("")
    config = read('[offload]\nprefixes = ["../list.txt"]\n', Path("conf/gateway.toml"), "replay")
    assert [path.resolve() for path in files_named(config)][1] == tmp_path / "list.txt"
