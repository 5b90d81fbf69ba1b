"""The checks of `make audit`: the project's dependencies, the pins of the lock files, the files of this environment.

    python scripts/audit.py             the offline part: says what is wrong, exit code 1 if anything is
    python scripts/audit.py --direct LOCK    the direct dependencies that a lock file holds, for scripts/lock
    python scripts/audit.py --advisories FILE    what pip-audit found, from its JSON; exit code 1 if anything

Locks are `requirements/*.txt` in pip's format. Nothing here opens a connection.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REASONS = ROOT / "docs" / "dependencies.md"
OURS = "tapbridge"
BUILT_HERE = {OURS, "pytricia"}
"""Packages that may have been compiled on this machine: everything else comes as a wheel."""

LOCKS = {"packages": ("run", "dev", "build"), "pytricia": ("compiled",), "tools": ("tools",)}
"""Lock file -> the groups of direct dependencies that it holds. `dev` are all extras but pytricia."""

# Licences in the metadata of packages, in SPDX's words or in those of the older classifiers. All of them may be
# installed beside our MIT. The GPL is scapy's, which only tests import, and one of two that pyroute2 lets us choose
# from.
ALLOWED_LICENCES = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"),
    *("GPL-2.0-only", "GPL-2.0-or-later", "LGPL-3.0-only"),
    *("Apache Software License", "BSD License", "MIT License", "Mozilla Public License 2.0 (MPL 2.0)"),
    *("DFSG approved", "OSI Approved"),
}
NAMED_IN_A_FILE = {"pytricia": "LGPL-3.0-only", "Cython": "Apache-2.0", "atheris": "Apache-2.0"}
"""Packages whose metadata name no licence in a field of its own; it is read in the file that comes with them."""


class Pin(NamedTuple):
    """One package of a lock: exact version, for which machines, SHA-256 sums of its files."""

    version: str
    marker: Marker | None
    hashes: tuple[str, ...]


def direct() -> dict[str, list[Requirement]]:
    """The ranges that the project itself asks for, by what they are for. `run` stands in setup.py, see there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (run,) = (
        ast.literal_eval(line.value)
        for line in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "DEPENDENCIES"
    )
    extras = project["project"]["optional-dependencies"]
    groups = {
        "run": run,
        "compiled": extras["pytricia"],
        "dev": [line for name, lines in extras.items() if name != "pytricia" for line in lines],
        "build": project["build-system"]["requires"],
        "tools": project["dependency-groups"]["tools"],
    }
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


def locked(lock: str) -> dict[NormalizedName, Pin]:
    """The packages of a lock file, by canonical name."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    pins = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith(("#", "--")):
            continue
        what, *hashes = re.split(r"\s+--hash=sha256:", line)
        requirement = Requirement(what)
        (only,) = requirement.specifier
        assert only.operator == "==", line
        pins[canonicalize_name(requirement.name)] = Pin(only.version, requirement.marker, tuple(hashes))
    return pins


def lock_faults() -> Iterator[str]:
    """Where the locks do not agree with what pyproject.toml and setup.py ask for."""
    groups = direct()
    for lock, names in LOCKS.items():
        pins = locked(lock)
        for requirement in (each for name in names for each in groups[name]):
            pin = pins.get(canonicalize_name(requirement.name))
            if pin is None:
                yield f"{lock}: {requirement.name} is asked for and not in it"
            elif not requirement.specifier.contains(pin.version):
                yield f"{lock}: {requirement.name} {pin.version} is not what is asked for, {requirement.specifier}"
        for name, pin in pins.items():
            if not pin.hashes or any(re.fullmatch("[0-9a-f]{64}", one) is None for one in pin.hashes):
                yield f"{lock}: {name} has no hash, or one that is no SHA-256"
        if "://" in (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8"):
            yield f"{lock}: it names a host; where packages come from is the machine's own affair"


def needed(names: Iterable[str]) -> set[NormalizedName]:
    """These and all that their installed metadata ask for on this machine."""
    found: set[NormalizedName] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        requirements = (Requirement(line) for line in lines)
        waiting += [
            canonicalize_name(each.name)
            for each in requirements
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


def unused() -> set[NormalizedName]:
    """Packages that the lock of the installation holds for this machine and nothing asks for."""
    groups = direct()
    asked = needed(each.name for group in LOCKS["packages"] for each in groups[group])
    here = {name for name, pin in locked("packages").items() if pin.marker is None or pin.marker.evaluate()}
    return here - asked


def version_faults() -> Iterator[str]:
    """Packages that are installed in another version than the locks have, that are not in the locks, or were built
    here."""
    pins = locked("packages") | locked("pytricia")
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.name)
        if name not in (OURS, "pip"):  # pip came with Python's own venv
            if name not in pins:
                yield f"{name} is installed and in no lock"
            elif pins[name].version != distribution.version:
                yield f"{name} {distribution.version} is installed, the lock has {pins[name].version}"
        if re.search(r"^Tag: \S+-linux_", distribution.read_text("WHEEL") or "", re.M) and name not in BUILT_HERE:
            yield f"{name} was built on this machine instead of taken as a wheel"


def file_faults() -> Iterator[str]:
    """Installed files that are gone or are not what their package's RECORD says (PEP 376)."""
    for distribution in metadata.distributions():
        for file in distribution.files or []:
            if file.hash is None:
                continue
            path = Path(str(file.locate()))
            if not path.is_file():
                yield f"{distribution.name}: {file} is gone"
                continue
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                yield f"{distribution.name}: {file} was changed after it was installed"


def licences(distribution: metadata.Distribution) -> list[str]:
    """The licences that a package names: SPDX's expression, else its classifiers, else what was read in its files."""
    told = distribution.metadata
    if "License-Expression" in told:
        return [part for part in re.split(r"\s+(?:OR|AND)\s+|[()]", told["License-Expression"]) if part]
    lines = told.get_all("Classifier", [])
    classifiers = [line.rpartition(" :: ")[2] for line in lines if line.startswith("License ::")]
    return classifiers or [NAMED_IN_A_FILE.get(distribution.name, "no licence")]


def licence_faults() -> Iterator[str]:
    """Packages with a licence that is not on the list. Of those to choose from (OR) all have to be."""
    for distribution in metadata.distributions():
        for name in licences(distribution):
            if name not in ALLOWED_LICENCES:
                yield f"{distribution.name}: {name} is not among the licences that were looked at"


def explained() -> set[NormalizedName]:
    """Packages that docs/dependencies.md gives a reason for: the names that begin the rows of its tables."""
    rows = re.findall(r"^\| (`[^|]+`) \|", REASONS.read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name) for row in rows for name in re.findall("`([^`]+)`", row)}


def debian_packages() -> set[str]:
    """Packages that scripts/install takes from Debian without asking: those behind its words `need PROGRAM`."""
    text = (ROOT / "scripts" / "install").read_text(encoding="utf-8")
    return {name for line in re.findall(r"\bneed \S+ ([a-z][a-z0-9 .+-]*)", text) for name in line.split()}


def reason_faults() -> Iterator[str]:
    """Direct dependencies without a reason, and reasons for what is not depended on."""
    names = {canonicalize_name(each.name) for group in direct().values() for each in group}
    told = explained()
    for name in sorted((names | debian_packages()) - told):
        yield f"{REASONS.name}: no reason for {name}"
    debian = REASONS.read_text(encoding="utf-8").partition("## Debian")[2]
    for name in sorted(told - names):
        if f"`{name}`" not in debian:
            yield f"{REASONS.name}: {name} is not depended on"


def check_faults() -> Iterator[str]:
    """Complaints of `pip check` about packages that do not fit each other."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if done.returncode:
        yield from done.stdout.splitlines()


PARTS = {
    "the locks agree with setup.py and pyproject.toml": lock_faults,
    "nothing in the lock is unused": lambda: (f"{name} is asked for by nobody" for name in sorted(unused())),
    "what is installed is what the lock has": version_faults,
    "installed files are those of their packages": file_faults,
    "the packages fit each other": check_faults,
    "the licences are known": licence_faults,
    "each direct dependency has its reason": reason_faults,
}


def audit() -> int:
    """The offline part, said line by line; the number of faults."""
    count = 0
    for title, part in PARTS.items():
        faults = list(part())
        count += len(faults)
        print(f"{'FAULT' if faults else 'ok':<7}{title}")
        for fault in faults:
            print(f"         {fault}")
    return count


def advisories(document: Path) -> int:
    """Say what pip-audit found and what it could not ask about: a database that does not answer is no clean bill."""
    packages = json.loads(document.read_text(encoding="utf-8"))["dependencies"]
    found = [(each["name"], each["version"], flaw["id"]) for each in packages for flaw in each.get("vulns", ())]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    for name, version, flaw in found:
        print(f"FAULT  {name} {version}: {flaw}")
    if packages and len(skipped) == len(packages):
        print("not asked: the database of known vulnerabilities cannot be reached from here")
    elif skipped:
        print(f"not asked about: {', '.join(skipped)}")
    if not found and len(skipped) < len(packages):
        print(f"ok     no known vulnerability in {len(packages) - len(skipped)} packages")
    return len(found)


def main(words: list[str]) -> int:
    """The command; its exit code."""
    match words:
        case ["--direct", lock]:
            groups = direct()
            print(*(str(each) for name in LOCKS[lock] for each in groups[name]), sep="\n")
            return 0
        case ["--advisories", document]:
            return min(advisories(Path(document)), 1)
        case []:
            return min(audit(), 1)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
