"""docs/configuration.md names every key, with the defaults that the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bridge.config import model as config_model
from bridge.config.keys import keys_of_model
from bridge.config.load import read
from bridge.config.model import Config
from bridge.config.words import Restart, word_of

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
BLOCKS = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
SHOWN: dict[str, Any] = {name: table for block in BLOCKS for name, table in block.items()}
TABLES = {name: table for name, table in SHOWN.items() if name != "peer"} | {"peer": SHOWN["peer"]["hk"]}
ONE_IS_SHOWN = {("alias", "forward"), ("offload", "prefixes")}
MODELS: dict[str, type[BaseModel]] = {
    key.path[0]: key.table for key in keys_of_model() if key.table and len(key.path) == 1
}


def test_the_page_has_every_table() -> None:
    tables = set(Config.model_fields)
    assert set(TABLES) == tables
    assert set(MODELS) == tables


@pytest.mark.parametrize("table", MODELS)
def test_the_page_has_every_key_of_a_table(table: str) -> None:
    assert set(TABLES[table]) == set(MODELS[table].model_fields)


def test_the_page_has_every_key_of_the_dhcp_client() -> None:
    assert set(TABLES["tap1"]["dhcp"]) == set(config_model.DhcpTable.model_fields)


def test_the_page_has_every_key_of_a_forward() -> None:
    assert set(TABLES["alias"]["forward"][0]) == set(config_model.ForwardTable.model_fields)


@pytest.mark.parametrize(
    ("table", "key", "default"),
    [
        (table, key, field.default)
        for table, model in MODELS.items()
        for key, field in model.model_fields.items()
        if isinstance(field.default, bool | int | str | tuple | Path)
    ],
)
def test_the_page_shows_the_default(table: str, key: str, default: object) -> None:
    shown = TABLES[table][key]
    if isinstance(default, Path):
        assert Path(shown) == default
    elif (table, key) in ONE_IS_SHOWN:
        assert default == ()
    else:
        assert shown == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize(("table", "own"), [("tap0", config_model.Tap0Table), ("tap1", config_model.Tap1Table)])
def test_the_page_shows_the_mac_address_that_is_derived(table: str, own: type[BaseModel]) -> None:
    shown = TABLES[table]
    derived = own.model_validate({"address": shown["address"]}).mac.hex(":")  # type: ignore[attr-defined] # of both
    assert shown["mac"] == derived


def test_the_page_is_a_valid_configuration(tmp_path: Path) -> None:
    (tmp_path / "offload.txt").write_text("203.0.113.0/24\n")
    (tmp_path / "route").mkdir()
    text = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    config = read(text, tmp_path / "gateway.toml", "replay")
    assert config.tap0 is not None
    assert config.tap0.address == IPv4Interface(TABLES["tap0"]["address"])


def comments() -> Iterator[tuple[tuple[str, ...], str]]:
    """The comment of each key of the page by its path, and under the path of a table the one of its header."""
    table: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    for line in "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        said, _, comment = line.partition("# ")
        if header := re.match(r"\[+([\w.]+)\]+", said):
            table = path = tuple(header[1].split("."))
        elif key := re.match(r"(\w+) =", said):
            path = (*table, key[1])
        yield path, comment


def test_the_page_says_of_every_key_whether_it_needs_a_restart() -> None:
    said: dict[tuple[str, ...], str] = {}
    for path, comment in comments():
        said[path] = f"{said.get(path, '')} {comment}"
    for key in keys_of_model():
        restart = word_of(key.field, Restart)
        path = tuple(name for name in key.path if name != "*")
        path = ("peer", "hk", *path[1:]) if path[0] == "peer" and len(path) > 1 else path
        if key.table is not None or path not in said:
            continue
        header = said.get(path[:-1], "")
        table_says_so = re.search(r"\b[Rr]estart\b", header) is not None
        excepted = re.findall(r"`(\w+)`", header.partition("but for")[2])
        own_line_says_so = re.search(r"\b[Rr]estart\b", said[path]) is not None
        assert (restart is not None) == (own_line_says_so or (table_says_so and path[-1] not in excepted)), path
