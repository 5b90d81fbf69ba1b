"""The words that both ends of the control socket use: documents, refusals and their exit codes.

`bridge.control.client` asks, `bridge.control.server` answers, `bridge.control.answers` holds the answers. This module
imports nothing of the gateway, because `bridgectl` imports it at every start.
"""

from __future__ import annotations

import json
from typing import Any

Document = dict[str, Any]
"""A JSON object: the arguments of a question, or its answer. Keys are public: they are added to, never renamed."""

VERSION = 1
"""The value of `version` in every answer."""

OK, FAILED, USAGE, BAD_CONFIGURATION = 0, 1, 2, 4
"""Exit codes that `bridgectl` ends with; a refusal carries one."""


class QuestionRefused(Exception):
    """The gateway does not answer a question. `code` is the exit code that `bridgectl` ends with."""

    def __init__(self, code: int, says: str) -> None:
        super().__init__(says)
        self.code = code
        self.says = says


def answer_line(result: Document) -> bytes:
    """The line that answers a question with `result`."""
    return record_line({"ok": True, "result": result})


def refusal_line(refused: QuestionRefused) -> bytes:
    """The line that answers a question with a refusal."""
    return record_line({"ok": False, "code": refused.code, "error": refused.says})


def record_line(document: Document) -> bytes:
    """One document as one line of JSON."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
