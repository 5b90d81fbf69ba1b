"""Python and the project for other users of the lab: an interpreter below /root is root's alone otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from lab.process import ROOT, run

_PLACE = Path("/run/everyone")


def let_everyone_run_python() -> None:
    """In the mount namespace of the lab only (`lab.private`): where a folder above Python, the virtual environment or
    the project is closed to others, an open one stands in for it, with nothing in it but these."""
    if _PLACE.exists():
        return
    wanted = [Path(path).resolve() for path in (sys.base_prefix, sys.prefix, ROOT)]
    closed = {path: found for path in wanted if (found := next(_closed_above(path), None)) is not None}
    for number, path in enumerate(closed):
        aside = _PLACE / str(number)
        aside.mkdir(parents=True)
        run(["mount", "--bind", str(path), str(aside)])
    for folder in set(closed.values()):
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tapbridge-lab", str(folder)])
    for number, path in enumerate(closed):
        path.mkdir(parents=True)
        run(["mount", "--bind", str(_PLACE / str(number)), str(path)])


def _closed_above(path: Path) -> Iterator[Path]:
    """The folders above and at `path` that others may not enter, the first one first."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            yield folder
