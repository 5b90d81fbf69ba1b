"""Sixty seconds of fuzzing: what is kept is replayed, every target gets blind turns, and one guided run goes over all.

Longer ones are `make fuzz MINUTES=30`. The guided run needs atheris, which is published for x86-64 alone, and gcc for
the sanitizers; both are installed by `scripts/install`, so that with CI=true one that is missing is a failure.
"""

from __future__ import annotations

import base64
import logging
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compiled import compiled
from trials.fuzz import hostile, instrumented, kept
from trials.fuzz import run as fuzz
from trials.fuzz.choices import Choices
from trials.fuzz.hostile import Broken, Failure, Target
from trials.fuzz.targets import control as fuzz_control
from trials.fuzz.targets.all import targets, together

ALL = targets()
BLIND_S = 22.0
GUIDED_S = 22.0
NEEDS_COMPILED = ("bursts", "lanes", "pieces")


@pytest.mark.parametrize("name", ALL)
def test_what_is_kept_breaks_nothing(name: str) -> None:
    if name in NEEDS_COMPILED:
        compiled("bridge.ports.udp.lanes", "Lanes")
    for entry in kept.entries(name):
        hostile.replay(ALL[name], entry)


@pytest.mark.parametrize("name", ALL)
def test_blind_turns_break_nothing(name: str) -> None:
    if name in NEEDS_COMPILED:
        compiled("bridge.ports.udp.lanes", "Lanes")
    seed = 1 if os.environ.get("CI") == "true" else random.randrange(1 << 32)  # in CI the same every time
    assert hostile.run(ALL[name], BLIND_S / len(ALL), seed=seed) > 0


@pytest.mark.timeout(900)  # a build, and a machine that does other things
def test_a_guided_run_on_instrumented_modules_breaks_nothing(tmp_path: Path) -> None:
    if instrumented.runtime() is None:
        is_published = platform.machine() == "x86_64" and sys.maxsize > 1 << 32 and sys.version_info < (3, 14)
        assert os.environ.get("CI") != "true" or not is_published, "scripts/install installs atheris"
        pytest.skip("atheris is not installed here")
    if os.environ.get("WITHOUT_COMPILER"):
        packages = None
    else:
        compiled("bridge.ports.udp.lanes", "Lanes")
        packages = instrumented.build(quick=True)
    inputs = [bytes([at]) + entry for at, name in enumerate(ALL) for entry in kept.entries(name)]
    done = fuzz.guide(list(ALL), GUIDED_S, packages, tmp_path, inputs)
    assert done.inputs > len(ALL)
    assert done.edges >= done.edges_before > 1000, done


@pytest.mark.parametrize("name", ["control", "texts"])
def test_a_target_leaves_the_log_as_it_was(name: str) -> None:
    levels = {logger: logging.getLogger(logger).level for logger in ("bridge", "bridge.state.stamps")}
    hostile.run(ALL[name], 60, seed=1, most=20)
    assert levels == {logger: logging.getLogger(logger).level for logger in levels}


# The fuzzer itself


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(name=st.sampled_from(["frames", "flow", "tunnel", "relay", "pieces"]), rng=st.randoms(use_true_random=False))
def test_hypothesis_chooses_as_well_as_chance_does(name: str, rng: random.Random) -> None:
    if name == "pieces":
        compiled("wire.segments", "segment")
    ALL[name].episode(rng, 8)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(["config", "pcap", "texts"]), data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    hostile.replay(ALL[name], data)


def test_the_same_bytes_are_the_same_choices_and_a_spent_generator_says_so() -> None:
    first, second = (Choices(b"some bytes") for _ in range(2))
    drawn = [
        (one.random(), one.randrange(10), one.choice("abc"), one.randbytes(4), one.getrandbits(40))
        for one in (first, second)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0][3] == b"e by"
    assert first.is_spent
    assert not Choices(b"").is_spent
    assert Choices(b"ab").rest() == b"ab"
    assert len(Choices(b"ab").randbytes(1000)) == 1000


def test_a_byte_changed_changes_one_choice() -> None:
    def drawn(data: bytes) -> list[int]:
        rng = Choices(data)
        return [rng.randrange(200) for _ in range(8)]

    assert [a == b for a, b in zip(drawn(bytes(8)), drawn(b"\0\0\0\7\0\0\0\0"), strict=True)].count(False) == 1


def test_an_input_that_breaks_something_is_told_in_a_form_that_repeats_it() -> None:
    def episode(rng: random.Random, _most: int) -> int:
        if hostile.raw(rng).startswith(b"b"):
            raise Failure("a b")
        return 1

    target = Target("none", episode, is_raw=True, samples=lambda: [b"abc", b"bc"])
    assert hostile.replay(target, b"abc") == 1
    with pytest.raises(Broken, match="6263"):
        hostile.replay(target, b"bc")
    with pytest.raises(Broken, match="62"):
        hostile.run(target, 60, seed=1)
    both = together([target, target])
    assert both.samples() == [b"\0abc", b"\0bc", b"\1abc", b"\1bc"]
    with pytest.raises(Failure):
        both.episode(Choices(b"\1bc"), 1)


def test_a_corpus_is_text_that_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "reached.txt"
    kept.write(path, [b"long", b"\0", b"long"])
    assert kept.read(path) == [b"\0", b"long"]
    path.write_text(path.read_text() + f"\n{base64.b64encode(b'more').decode()}  # why\n")
    assert kept.read(path)[-1] == b"more"
    assert kept.read(tmp_path / "none") == []
    path.write_text("no base64!\n")
    with pytest.raises(ValueError, match="base64"):
        kept.read(path)


def test_a_question_that_changes_something_and_an_answer_that_is_a_bug_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = fuzz_control.ControlStage(tmp_path)
    fuzz_control._ask_control(
        stage, b'{"command": "stats"}\n{"command": "route.get", "arguments": {"ip": "1.1.1.1"}}\n'
    )
    flush = stage.control._handlers["alias.flush"]
    monkeypatch.setattr(stage.control, "_handlers", {**stage.control._handlers, "stats": flush})
    with pytest.raises(Failure, match="has changed something"):
        fuzz_control._ask_control(stage, b'{"command": "stats"}\n')
    monkeypatch.setattr(stage.control, "_handlers", {"stats": lambda *_: 1 // 0})
    with pytest.raises(Failure, match="a bug while answering"):
        fuzz_control._ask_control(stage, b'{"command": "stats"}\n')
    stage.close()


def test_a_guided_run_tells_the_input_that_broke_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(command: list[str], stdout: object, **_: object) -> subprocess.CompletedProcess[bytes]:
        place = next(word.partition("=")[2] for word in command if word.startswith("--found="))
        (Path(place) / "crash-1").write_bytes(b"\0\1")
        (Path(place) / "log").write_text("#1 NEW cov: 5\nERROR: AddressSanitizer: heap-buffer-overflow\n")
        return subprocess.CompletedProcess(command, 77)

    monkeypatch.setattr(subprocess, "run", crashed)
    monkeypatch.setattr(instrumented, "runtime", lambda: Path("library.so"))
    with pytest.raises(Broken, match=r"(?s)guided on frames:.*heap-buffer-overflow.*crash-1: AAE="):
        fuzz.guide(["frames"], 1, None, tmp_path, [b"kept"])
    assert (tmp_path / "kept0").read_bytes() == b"kept"
