"""Answers without a daemon: a gateway is made from a configuration file for one question."""

from __future__ import annotations

import random
from pathlib import Path

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import Config, ConfigError, Purpose, load
from bridge.control.answers.every import QUESTIONS
from bridge.control.answers.question import Subject
from bridge.control.protocol import Document, QuestionRefused
from bridge.walk.gateway import Gateway
from bridgectl.errors import BadConfiguration, with_code
from route.table import RouteTable


def load_config(path: Path, purpose: Purpose = "replay") -> Config:
    """The configuration. Raises `BadConfiguration` (exit code 4) with all its errors."""
    try:
        return load(path, purpose)
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
    config = load_config(path)
    gateway = Gateway(gateway_settings(config), load_routes(config), random.Random(0))
    try:
        return QUESTIONS[command](Subject(gateway, config=config), arguments, 0)
    except QuestionRefused as refused:
        raise with_code(refused.code, refused.says) from refused
