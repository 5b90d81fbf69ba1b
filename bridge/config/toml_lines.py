"""The line of every key of a TOML document. `tomllib` gives values without lines, this scanner the lines.

It reads a document that `tomllib` has accepted, so it checks nothing. It follows the grammar (TOML 1.0) as far as
necessary for dotted and quoted keys, inline tables, arrays of tables, and strings and arrays over many lines.
"""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]
"""Keys from the top of the document; a number is the index in an array or an array of tables."""

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = {  # by the quotes that open them
    '"""': re.compile(r'"""(?:[^\\"]|\\.|"(?!""))*"{3,5}', re.DOTALL),
    "'''": re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL),
    '"': re.compile(r'"(?:[^\\"\n]|\\.)*"'),
    "'": re.compile(r"'[^'\n]*'"),
}
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([btnfr"\\]))')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class KeyLines:
    """The lines of one document. For an absent path `line` gives the line of the table around it, else 1."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_at, self._counted_line = 0, 1
        self._lines: dict[KeyPath, int] = {}
        self._last_of_array: dict[KeyPath, int] = {}  # arrays of tables: the index that `[[name]]` gave last
        self._document()

    def line(self, path: KeyPath) -> int:
        """The line (from 1) of a key, of an array's item, or of a table's header."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return 1

    def _document(self) -> None:
        table: KeyPath = ()
        while self._skip(_BLANK):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._key_and_value(table)

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = self._dotted_key()
        self._at += 2 if is_array else 1
        table: KeyPath = ()
        for depth, key in enumerate(keys, 1):
            table += (key,)
            self._note(table)
            if is_array and depth == len(keys):
                self._last_of_array[table] = self._last_of_array.get(table, -1) + 1
            if table in self._last_of_array:
                table += (self._last_of_array[table],)
        self._lines.pop(table, None)  # a table's own header counts, even where a table inside it came first
        self._note(table)
        return table

    def _key_and_value(self, table: KeyPath) -> None:
        keys = self._dotted_key()
        for key in keys:
            table += (key,)
            self._note(table)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(table)

    def _dotted_key(self) -> list[str]:
        """The parts of a key, the position behind it and behind the blanks that follow."""
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            quote = self._text[self._at]
            found = _STRINGS.get(quote, BARE_KEY).match(self._text, self._at)
            if found is None:
                raise AssertionError(f"no TOML key at offset {self._at}: the document was not checked by tomllib")
            self._at = found.end()
            if quote in _STRINGS:
                inner = found[0][1:-1]
                keys.append(_ESCAPE.sub(_unescaped, inner) if quote == '"' else inner)
            else:
                keys.append(found[0])
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            self._items(path)
        elif opening == "{":
            self._at += 1
            while self._skip(_BLANK) and self._text[self._at] != "}":
                self._key_and_value(path)
                self._skip_comma()
            self._at += 1
        else:
            triple = self._text[self._at : self._at + 3]
            pattern = _STRINGS.get(triple) or _STRINGS.get(opening) or _SCALAR
            self._skip(pattern)

    def _items(self, path: KeyPath) -> None:
        index = 0
        while self._skip(_BLANK) and self._text[self._at] != "]":
            self._note((*path, index))
            self._value((*path, index))
            self._skip_comma()
            index += 1
        self._at += 1

    def _skip_comma(self) -> None:
        if self._skip(_BLANK) and self._text[self._at] == ",":
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Move behind a match at this position; False at the end of the document."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return self._at < len(self._text)

    def _note(self, path: KeyPath) -> None:
        """Remember the line at which a path is met first."""
        self._counted_line += self._text.count("\n", self._counted_at, self._at)
        self._counted_at = self._at
        self._lines.setdefault(path, self._counted_line)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPED[found[3]]
