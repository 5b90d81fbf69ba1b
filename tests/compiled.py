"""Where the compiled part is needed: skip where it was not built, but never on the build machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tunnel.burst import CompiledCipher


def compiled_cipher() -> type[CompiledCipher]:
    """The compiled cipher, or a skip with its reason; with CI=true a missing one is a failure."""
    try:
        from tunnel.burst import CompiledCipher  # noqa: PLC0415 - it may be missing
    except ImportError as missing:
        # WITHOUT_COMPILER says that it was left out on purpose.
        if os.environ.get("CI") == "true" and not os.environ.get("WITHOUT_COMPILER"):
            raise
        pytest.skip(f"not compiled here: {missing}")
    return CompiledCipher
