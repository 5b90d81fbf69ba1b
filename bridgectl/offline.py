"""Answers without a daemon: from a configuration file, through a gateway made for the one question."""

from __future__ import annotations

import random
from pathlib import Path

from bridge.config.into_routes import routes_from
from bridge.config.load import Config, ConfigError, Purpose, load
from bridge.control.client import Document
from bridge.control.explain import COMMANDS, Refused
from bridge.walk.gateway import Gateway
from bridgectl.faults import BadConfiguration, with_code
from route.table import RouteTable


def load_config(path: Path, purpose: Purpose = "replay") -> Config:
    """The configuration; exits with 4 and all its faults where it is none."""
    try:
        return load(path, purpose)
    except ConfigError as fault:
        raise BadConfiguration(fault.errors) from fault


def load_routes(config: Config) -> RouteTable:
    """Its routing table; exits with 4 and all faults of the prefix files."""
    try:
        return routes_from(config)
    except ConfigError as fault:
        raise BadConfiguration(fault.errors) from fault


def answer(path: Path, command: str, arguments: Document) -> Document:
    """What the daemon would answer, freshly started with this configuration."""
    config = load_config(path)
    gateway = Gateway(config, load_routes(config), random.Random(0))
    try:
        return COMMANDS[command](gateway, arguments, 0)
    except Refused as fault:
        raise with_code(fault.code, str(fault)) from fault
