"""The inputs that are kept in `tests/corpus`, and their text form.

`reached.txt` of a target holds inputs that a guided run found worth keeping (`python -m trials.fuzz.corpus` writes it).
`faults.txt` beside it is written by hand: an input that broke something once, with a comment that says what broke.

Both are text: an input a line in base64, `#` begins a comment. `tests/trials/fuzz/test_fuzzing.py` replays them all.
"""

from __future__ import annotations

import base64
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "corpus"


def read(path: Path) -> list[bytes]:
    """The inputs of one file; none where there is no file. `ValueError` for a line that is no base64."""
    if not path.exists():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [base64.b64decode(line, validate=True) for line in lines if line]


def entries(target: str, folder: Path = FOLDER) -> list[bytes]:
    """All inputs that are kept for a target."""
    return [entry for name in ("faults.txt", "reached.txt") for entry in read(folder / target / name)]


def write(path: Path, found: list[bytes]) -> None:
    """Inputs as lines, the shortest first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [base64.b64encode(entry).decode() for entry in sorted(set(found), key=lambda entry: (len(entry), entry))]
    path.write_text(
        "# Made by `python -m trials.fuzz.corpus`, see README.md.\n" + "".join(f"{line}\n" for line in lines)
    )
