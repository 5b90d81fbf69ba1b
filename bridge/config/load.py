"""Reading a configuration: one TOML file, checked whole before anything is touched.

`load` returns a frozen `Config` or raises `ConfigError` with all errors at once. A value that is wrong by itself is
reported and then left out, so that the rules between the other values (`bridge.config.checks`), the demands of a
running gateway (`bridge.config.demands`) and the prefix files are checked at once.
"""

from __future__ import annotations

import codecs
import difflib
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bridge.config import files
from bridge.config.checks import check
from bridge.config.defaults import DEFAULT_ROUTES_FOLDER
from bridge.config.demands import demand
from bridge.config.errors import ConfigError, without_keys
from bridge.config.findings import Findings
from bridge.config.keys import table_in
from bridge.config.lists import ListReader, PrefixFiles, node_files, reason, warnings_of
from bridge.config.model import Config, Purpose, Tap0Table, Tap1Table, TomlTable, derived_mac, unwritten
from bridge.config.toml_file import TomlFile
from bridge.config.toml_lines import KeyPath
from bridge.config.values import MAXIMUM_TAP_MTU, MINIMUM_MTU, is_node_name
from bridge.config.words import Example, word_of
from bridge.ports.bridges import mtu_of
from route.lists import PrefixList

__all__ = ["Config", "ConfigError", "Purpose", "load", "read"]

_MACHINE_ID = Path("/etc/machine-id")

_FOLLOWS_FROM_ANOTHER = "default_factory_not_called"  # a default is made from a value that is wrong itself
_OF_THE_KEY = "[key]"  # pydantic's last step to a key of a table; without it the value is meant

_KINDS = {
    "string_type": "a string in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list in [ ]",
}


ListsFor = Callable[[Config], ListReader]


def _without_copies(_config: Config) -> ListReader:
    return ListReader()


def load(path: Path, purpose: Purpose, lists_for: ListsFor = _without_copies) -> Config:
    """Read and check a file. `run` and `check` demand keys, endpoints and programs, `replay` does without them.

    Paths in the file are relative to it. `lists_for`: makes the reader of lists for a configuration. Raises
    `ConfigError` where the file is missing or has errors.
    """
    try:
        data = files.read(path).removeprefix(codecs.BOM_UTF8)  # some editors put it in front
    except OSError as error:
        raise ConfigError([f"{path}:1: {reason(error)}, name a configuration file that can be read"]) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: this is no UTF-8 text, a TOML file is"]) from None
    return read(text, path, purpose, lists_for)


def read(text: str, path: Path, purpose: Purpose, lists_for: ListsFor = _without_copies) -> Config:
    """The same for the text of a file at `path`, which need not exist. The files that it names are read from disk.

    Raises `ConfigError`.
    """
    toml = TomlFile(text, path)
    findings = Findings(toml)
    config = _usable(toml, findings)
    if purpose != "replay":
        config = _with_bridge_mtus(_with_own_mac(config, toml), toml, findings)
    check(config, toml, findings)
    if purpose != "replay":
        demand(config, toml, findings)
    reader = lists_for(config)
    offload, nodes = _offload_lists(config, findings, reader), _node_lists(config, toml, findings, purpose, reader)
    lists = PrefixFiles(offload, nodes, reader.texts, reader.dates)
    findings.warn_elsewhere(reader.warnings)
    findings.warn_elsewhere(warnings_of(lists))
    errors = findings.errors()
    if errors:
        raise ConfigError(errors)
    config.attach(toml, findings.warnings(), lists)
    return config


def _with_own_mac(config: Config, toml: TomlFile) -> Config:
    """The configuration with a MAC address made from the machine's identity, where tap1's address is leased.

    Two gateways of one ISP must differ, and neither has an address to make it from. A replay depends on its inputs
    alone, so it does without.
    """
    tap1 = config.tap1
    if tap1 is None or not tap1.is_leased or toml.has("tap1", "mac"):
        return config
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = os.uname().nodename
    return config.model_copy(update={"tap1": tap1.with_mac(derived_mac("tap1", f"dhcp {machine}"))})


def _with_bridge_mtus(config: Config, toml: TomlFile, findings: Findings) -> Config:
    """The configuration with the MTU of its bridge for each tap that has no `mtu`; one that has another is refused.

    A tap that joins a bridge would lower the MTU of the bridge. A bridge that is not there is no error here.
    """
    for name in ("tap0", "tap1"):
        tap: Tap0Table | Tap1Table | None = getattr(config, name)
        is_bridged = tap is not None and tap.bridge is not None and getattr(tap, "kind", "tap") == "tap"
        if tap is None or tap.bridge is None or not is_bridged:
            continue
        mtu_bytes = mtu_of(tap.bridge, tap.netns)
        if mtu_bytes is None or mtu_bytes == tap.mtu or not MINIMUM_MTU <= mtu_bytes <= MAXIMUM_TAP_MTU:
            continue
        if not toml.has(name, "mtu"):
            config = config.model_copy(update={name: unwritten(tap, "mtu", mtu_bytes)})
            continue
        what = f"{tap.mtu} is not the MTU of {tap.bridge}, {mtu_bytes}: give that, or leave the key out"
        findings.error((name, "mtu"), what)
    return config


def _usable(toml: TomlFile, findings: Findings) -> Config:
    """The file as a `Config`. Values that are wrong by themselves are reported and left out."""
    told = False
    while True:
        try:
            return Config.model_validate(toml.remaining, context={"directory": toml.path.parent})
        except ValidationError as error:
            wrong: list[KeyPath] = []
            for details in error.errors(include_url=False):
                if details["type"] == _FOLLOWS_FROM_ANOTHER:
                    continue
                path = tuple(key for key in details["loc"] if key != _OF_THE_KEY)
                place = path[:-1] if details["type"] == "missing" else path
                if not told:
                    findings.error(place, _told(path, details))
                wrong.append(place)
        told = True  # further errors are about tables that lack the values left out
        toml.leave_out(wrong)


def _told(path: KeyPath, details: ErrorDetails) -> str:
    """The message about one value, made of pydantic's finding: what is wrong, what is right."""
    kind, key = details["type"], str(path[-1])
    context = details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown key, {_known_keys(path)}"
    if kind == "missing":
        return f'"{key}" is missing, add it as {key} = {_example(path)}'
    shown = f"{without_keys(_toml(details['input'])):.40}"
    if kind in _KINDS:
        return f"{shown} is of another type, give {_KINDS[kind]}"
    if kind == "greater_than_equal":
        return f"{shown} is too small, give at least {context['ge']}"
    if kind == "less_than_equal":
        return f"{shown} is too large, give at most {context['le']}"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", '"')
        return f"{shown} is none of the choices, give {choices}"
    raise AssertionError(f"a configuration model has a constraint without words: {kind}")


def _toml(value: object) -> str:
    """A value about as the file spells it, for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _known_keys(path: KeyPath) -> str:
    """The keys of the table in which an unknown key stands, or the likeliest of them alone."""
    known = list(_table_at(path[:-1]).model_fields)
    likely = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f'did you mean "{likely[0]}"?' if likely else f"known are {', '.join(known)}"


def _example(path: KeyPath) -> str:
    """The example that a required key says of itself."""
    key = str(path[-1])
    example = word_of(_table_at(path[:-1]).model_fields[key], Example)
    assert example is not None, f"{key} is required and has no example"
    return example.text


def _table_at(path: KeyPath) -> type[TomlTable]:
    """The model of the table that a path leads to."""
    table: type[TomlTable] = Config
    for key in path:
        if isinstance(key, str) and key in table.model_fields:
            table = table_in(table.model_fields[key]) or table
    return table


def _offload_lists(config: Config, findings: Findings, reader: ListReader) -> list[PrefixList]:
    lists: list[PrefixList] = []
    for index, file in enumerate(config.offload.prefixes):
        try:
            lists.append(reader.read(file))
        except OSError as error:
            findings.error(("offload", "prefixes", index), f"{file}: {reason(error)}, name a prefix list")
            continue
        findings.errors_elsewhere(lists[-1].errors)
    return lists


def _node_lists(
    config: Config, toml: TomlFile, findings: Findings, purpose: Purpose, reader: ListReader
) -> dict[str, PrefixList]:
    """The lists of the route folder by node; none where there can be no nodes.

    The default folder may be missing. A missing folder that the file names is an error, in a replay a warning.
    """
    if not any(toml.has(table) for table in ("vpn", "tunnel", "peer")):
        return {}
    asked_for = config.tunnel.routes if config.tunnel else None
    folder = asked_for or toml.path.parent / DEFAULT_ROUTES_FOLDER
    try:
        files = node_files(folder)
    except OSError as error:
        what = f"{folder}: {reason(error)}, name a folder with one prefix file for each node"
        if asked_for or not isinstance(error, FileNotFoundError):
            tell = findings.warn if purpose == "replay" else findings.error
            tell(("tunnel", "routes"), what)
        return {}
    peers_are_known = purpose != "replay" and toml.has("peer")
    default_node = config.vpn.node if config.vpn else None
    lists: dict[str, PrefixList] = {}
    for file in files:
        node = file.name
        if not is_node_name(node):
            findings.errors_elsewhere([f"{file}:1: this is no name of a node, name the file after a [peer.NAME]"])
            continue
        if peers_are_known and node != default_node and not toml.has("peer", node):
            what = f'there is no peer "{node}", add [peer.{node}] or name the file after one that is there'
            findings.errors_elsewhere([f"{file}:1: {what}"])
            continue
        try:
            lists[node] = reader.read(file)
        except OSError as error:
            findings.errors_elsewhere([f"{file}:1: {reason(error)}, a route file must be readable"])
            continue
        findings.errors_elsewhere(lists[node].errors)
    return lists
