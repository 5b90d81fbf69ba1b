"""docs/configuration.md names every key, with the defaults that the code has."""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bridge.config import model as config_model
from bridge.config.load import read
from bridge.config.model import Config

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
BLOCKS = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
SHOWN: dict[str, Any] = {name: table for block in BLOCKS for name, table in block.items()}
TABLES = {name: table for name, table in SHOWN.items() if name != "peer"} | {"peer": SHOWN["peer"]["hk"]}
ONE_IS_SHOWN = {("alias", "forward"), ("offload", "prefixes")}
MODELS: dict[str, type[BaseModel]] = {
    "tap0": config_model.Tap0,
    "tap1": config_model.Tap1,
    "tun0": config_model.Tun0,
    "vpn": config_model.Vpn,
    "offload": config_model.OffloadLists,
    "alias": config_model.Alias,
    "icmp": config_model.Icmp,
    "control": config_model.Control,
    "fast_path": config_model.FastPath,
    "hooks": config_model.Hooks,
    "process": config_model.Process,
    "tunnel": config_model.Tunnel,
    "peer": config_model.Peer,
}


def test_the_page_has_every_table() -> None:
    tables = set(Config.model_fields)
    assert set(TABLES) == tables
    assert set(MODELS) == tables


@pytest.mark.parametrize("table", MODELS)
def test_the_page_has_every_key_of_a_table(table: str) -> None:
    assert set(TABLES[table]) == set(MODELS[table].model_fields)


def test_the_page_has_every_key_of_the_dhcp_client() -> None:
    assert set(TABLES["tap1"]["dhcp"]) == set(config_model.Dhcp.model_fields)


def test_the_page_has_every_key_of_a_forward() -> None:
    assert set(TABLES["alias"]["forward"][0]) == set(config_model.Forward.model_fields)


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


@pytest.mark.parametrize(("table", "own"), [("tap0", config_model.Tap0), ("tap1", config_model.Tap1)])
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
