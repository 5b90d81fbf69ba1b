"""Everything that checking a configuration finds: errors, which refuse it, and warnings, which do not."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.config.errors import without_keys
from bridge.config.toml_file import TomlFile, dotted
from bridge.config.toml_lines import KeyPath


class Findings:
    """Errors and warnings about one file, kept until all checks are done.

    Each is a text `FILE:LINE: KEY: what is wrong, what is right`; a text that is found twice is told once.
    """

    def __init__(self, toml: TomlFile) -> None:
        self._toml = toml
        self._errors: set[tuple[int, str]] = set()
        self._errors_elsewhere: list[str] = []
        self._warnings: set[tuple[int, str]] = set()
        self._warnings_elsewhere: list[str] = []

    def error(self, path: KeyPath, what: str) -> None:
        """An error of a table, key or item: what is wrong, what is right."""
        self._errors.add(self._placed(path, what))

    def warn(self, path: KeyPath, what: str) -> None:
        """A warning of a table, key or item: it is allowed and has no effect, or not the expected one."""
        self._warnings.add(self._placed(path, what))

    def errors_elsewhere(self, errors: Iterable[str]) -> None:
        """Errors of other files, which bring their own file and line."""
        self._errors_elsewhere.extend(errors)

    def warn_elsewhere(self, warnings: Iterable[str]) -> None:
        """Warnings about other files, which bring their own file and line."""
        self._warnings_elsewhere.extend(warnings)

    def errors(self) -> list[str]:
        """All errors: of the file by line, then of other files in the order they came."""
        return [text for _, text in sorted(self._errors)] + self._errors_elsewhere

    def warnings(self) -> list[str]:
        """All warnings, in the same order."""
        return [text for _, text in sorted(self._warnings)] + self._warnings_elsewhere

    def _placed(self, path: KeyPath, what: str) -> tuple[int, str]:
        line = self._toml.line(path)
        key = dotted(self._toml.as_written(path))
        return line, f"{self._toml.path}:{line}: {without_keys(key + ': ' if key else '')}{without_keys(what)}"
