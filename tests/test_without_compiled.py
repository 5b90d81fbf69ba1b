"""The same tests once more where nothing is compiled: what plain Python serves must hold without the rest there.

A copy of the tree without its compiled modules, in an environment without pytricia, is tested by a pytest of its own;
what that says is shown where it fails.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bridge.daemon import built
from tests.conftest import ROOT
from tests.test_build import NOT_COPIED, Fresh

# Each room that has a twin of something compiled, what drives the whole walk, and the four flows between real kernels.
CHOSEN = (
    "tests/flow",
    "tests/bridge/ports",
    "tests/route",
    "tests/wire",
    "tests/bridge/daemon/test_implementation.py",
    "tests/bridge/loop/test_loop.py",
    "tests/bridge/loop/test_workers.py",
    "tests/bridge/vpn/test_vpn_port.py",
    "tests/bridge/walk/test_coherence.py",
    "tests/bridge/walk/test_coherence_after_changes.py",
    "tests/bridge/walk/test_gateway.py",
    "tests/bridgectl",
    "tests/conformance/test_udp.py",
    "tests/conformance/test_mechanics.py",
    "tests/lab/test_four_flows.py",
)


TRIED_S = 280


@pytest.mark.timeout(TRIED_S + 20)
def test_where_nothing_is_compiled_the_same_tests_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Path(shutil.copytree(ROOT, tmp_path / "tree", ignore=NOT_COPIED))
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", tree / "docs")
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)  # a worker's own
    fresh = Fresh(tmp_path / "fresh", with_pytricia=False)
    said = fresh.run("python", "-c", "from bridge.daemon import built; print(*built.missing())", cwd=tree).stdout
    assert set(said.split()) >= {"pytricia", *built.MODULES}
    shared = os.environ.get("TAPBRIDGE_SHARED", str(ROOT.parent / "shared"))
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *CHOSEN)
    told = fresh.run(
        "python", *words, cwd=tree, timeout_s=TRIED_S, WITHOUT_COMPILER="1", TAPBRIDGE_SHARED=shared
    ).stdout
    assert " passed" in told.splitlines()[-1]
