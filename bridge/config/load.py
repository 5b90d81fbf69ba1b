"""Reading a configuration: one TOML file, checked whole before anything is touched.

`load` gives a frozen `Config` or raises `ConfigError` with all faults at once. What is wrong by itself is told and then
left out, so that what the other values owe each other (`bridge.config.checks`), what running needs
(`bridge.config.demands`) and the prefix files are looked at in the same go.
"""

from __future__ import annotations

import codecs
import difflib
import os
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.config import files
from bridge.config.checks import check
from bridge.config.demands import demand
from bridge.config.document import Document, Report
from bridge.config.errors import ConfigError, without_keys
from bridge.config.lists import PrefixFiles, node_files, read_prefix_file, reason, warnings_of
from bridge.config.model import Config, Purpose, derived_mac
from bridge.config.toml_lines import KeyPath
from bridge.config.values import is_node_name
from route.lists import PrefixList

__all__ = ["Config", "ConfigError", "Purpose", "load", "read"]

DEFAULT_ROUTES_FOLDER = "route"
_MACHINE_ID = Path("/etc/machine-id")

_FOLLOWS_FROM_ANOTHER = "default_factory_not_called"  # a default that is made from a value which is wrong itself
_OF_THE_KEY = "[key]"  # pydantic's last step to a key of a table, as against the value under it

_EXAMPLES = {
    "address": '"192.168.200.2/24"',
    "on": '"tap1"',
    "protocol": '"tcp"',
    "outside_port": "8080",
    "inside": '"192.168.200.3:80"',
}
_KINDS = {
    "string_type": "a string in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list in [ ]",
}


def load(path: Path, purpose: Purpose) -> Config:
    """Read and check a file. `run` and `check` demand keys, endpoints and programs, `replay` does without them.

    Raises `ConfigError`, also where the file is missing. Paths in the file are relative to it.
    """
    try:
        data = files.read(path).removeprefix(codecs.BOM_UTF8)  # which some editors put in front
    except OSError as error:
        raise ConfigError([f"{path}:1: {reason(error)}, name a configuration file that can be read"]) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: this is no UTF-8 text, a TOML file is"]) from None
    return read(text, path, purpose)


def read(text: str, path: Path, purpose: Purpose) -> Config:
    """The same for a text that stands for the file at `path`; the files that it names are read from disk."""
    document = Document(text, path)
    report = Report(document)
    config = _usable(document, report)
    if purpose != "replay":
        config = _with_own_mac(config, document)
    check(config, document, report)
    if purpose != "replay":
        demand(config, document, report)
    lists = PrefixFiles(_offload_lists(config, report), _node_lists(config, document, report, purpose))
    report.warn_elsewhere(warnings_of(lists))
    faults = report.faults()
    if faults:
        raise ConfigError(faults)
    config.settle(document, report.warnings(), lists)
    return config


def _with_own_mac(config: Config, document: Document) -> Config:
    """A leased address tells no two gateways apart when the MAC address is made, and one ISP's server may see both. The
    machine's identity takes its place, but in a replay, which depends on its inputs alone."""
    tap1 = config.tap1
    if tap1 is None or not tap1.is_leased or document.has("tap1", "mac"):
        return config
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = os.uname().nodename
    return config.model_copy(update={"tap1": tap1.with_mac(derived_mac("tap1", f"dhcp {machine}"))})


def _usable(document: Document, report: Report) -> Config:
    """The document as a `Config`. Values that are wrong by themselves are reported and left out."""
    told = False
    while True:
        try:
            return Config.model_validate(document.remaining, context={"directory": document.path.parent})
        except ValidationError as error:
            wrong: list[KeyPath] = []
            for details in error.errors(include_url=False):
                if details["type"] == _FOLLOWS_FROM_ANOTHER:
                    continue
                path = tuple(key for key in details["loc"] if key != _OF_THE_KEY)
                place = path[:-1] if details["type"] == "missing" else path
                if not told:
                    report.fault(place, _told(path, details))
                wrong.append(place)
        told = True  # what comes now are tables that lack what was left out
        document.leave_out(wrong)


def _told(path: KeyPath, details: ErrorDetails) -> str:
    """What is wrong with one value and what is right, from what pydantic found."""
    kind, key = details["type"], str(path[-1])
    context = details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown key, {_known_keys(path)}"
    if kind == "missing":
        return f'"{key}" is missing, add it as {key} = {_EXAMPLES[key]}'
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
    """A value in the spelling of the file, near enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _known_keys(path: KeyPath) -> str:
    """What may stand in the table where an unknown key stands, the likeliest word alone if there is one."""
    model: type[BaseModel] = Config
    for key in path[:-1]:
        if isinstance(key, str) and key in model.model_fields:
            model = _table_type(model, key)
    known = list(model.model_fields)
    likely = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f'did you mean "{likely[0]}"?' if likely else f"known are {', '.join(known)}"


def _table_type(model: type[BaseModel], key: str) -> type[BaseModel]:
    """The model of the table, or of the tables, under a key; `model` itself where the key holds none."""
    waiting: list[object] = [model.model_fields[key].annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        waiting.extend(get_args(annotation))
    return model


def _offload_lists(config: Config, report: Report) -> list[PrefixList]:
    lists: list[PrefixList] = []
    for index, file in enumerate(config.offload.prefixes):
        try:
            lists.append(read_prefix_file(file))
        except OSError as error:
            report.fault(("offload", "prefixes", index), f"{file}: {reason(error)}, name a prefix list")
            continue
        report.faults_elsewhere(lists[-1].faults)
    return lists


def _node_lists(config: Config, document: Document, report: Report, purpose: Purpose) -> dict[str, PrefixList]:
    """The route folder by node, as far as there can be nodes. A folder that nobody asked for may be missing, and in a
    replay so may any."""
    if not any(document.has(table) for table in ("vpn", "tunnel", "peer")):
        return {}
    asked_for = config.tunnel.routes if config.tunnel else None
    folder = asked_for or document.path.parent / DEFAULT_ROUTES_FOLDER
    try:
        files = node_files(folder)
    except OSError as error:
        what = f"{folder}: {reason(error)}, name a folder with one prefix file for each node"
        if asked_for or not isinstance(error, FileNotFoundError):
            tell = report.warn if purpose == "replay" else report.fault
            tell(("tunnel", "routes"), what)
        return {}
    peers_are_known = purpose != "replay" and document.has("peer")
    default_node = config.vpn.node if config.vpn else None
    lists: dict[str, PrefixList] = {}
    for file in files:
        node = file.name
        if not is_node_name(node):
            report.faults_elsewhere([f"{file}:1: this is no name of a node, call the file as a [peer.NAME]"])
            continue
        if peers_are_known and node != default_node and not document.has("peer", node):
            what = f'there is no peer "{node}", add [peer.{node}] or call the file as one that is there'
            report.faults_elsewhere([f"{file}:1: {what}"])
            continue
        try:
            lists[node] = read_prefix_file(file)
        except OSError as error:
            report.faults_elsewhere([f"{file}:1: {reason(error)}, a route file must be readable"])
            continue
        report.faults_elsewhere(lists[node].faults)
    return lists
