"""Answers without a daemon: a gateway is made from a configuration file for one question."""

from __future__ import annotations

import random
from pathlib import Path

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.lists import ListReader, ListRule
from bridge.config.load import Config, ConfigError, ListsFor, Purpose, load
from bridge.control.answers.every import QUESTIONS
from bridge.control.answers.question import Subject
from bridge.control.protocol import Document, QuestionRefused
from bridge.state.lists import copies_path, read_copies
from bridge.walk.gateway import Gateway
from bridgectl.errors import BadConfiguration, with_code
from route.table import RouteTable


def load_config(path: Path, purpose: Purpose = "replay") -> Config:
    """The configuration. Raises `BadConfiguration` (exit code 4) with all its errors."""
    return _loaded(path, purpose, lambda _config: ListReader())


def load_as_started(path: Path, purpose: Purpose = "replay", socket_path: Path | None = None) -> Config:
    """The configuration as a start would read it: last good copies stand in for spoiled lists. Raises
    `BadConfiguration` (exit code 4) with all its errors."""

    def lists_for(config: Config) -> ListReader:
        return ListReader(ListRule.START, read_copies(copies_path(socket_path or config.control.socket)))

    return _loaded(path, purpose, lists_for)


def _loaded(path: Path, purpose: Purpose, lists_for: ListsFor) -> Config:
    try:
        return load(path, purpose, lists_for)
    except ConfigError as error:
        raise BadConfiguration(error.errors) from error


def load_routes(config: Config) -> RouteTable:
    """Its routing table. Raises `BadConfiguration` (exit code 4) with all errors of the prefix files."""
    try:
        return routes_from(config)
    except ConfigError as error:
        raise BadConfiguration(error.errors) from error


def answer(path: Path, command: str, arguments: Document) -> Document:
    """The answer that a daemon would give, freshly started with this configuration. Raises a `ClickException` with the
    exit code of a refusal."""
    config = load_as_started(path)
    gateway = Gateway(gateway_settings(config), load_routes(config), random.Random(0))
    try:
        return QUESTIONS[command](Subject(gateway, config=config), arguments, 0)
    except QuestionRefused as refused:
        raise with_code(refused.code, refused.says) from refused
