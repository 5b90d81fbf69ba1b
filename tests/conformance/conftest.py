"""Scenarios for the checklist's rows: each is compared with its golden transcript and replayed from its own input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.config.into_routes import routes_from
from bridge.config.load import load
from bridge.replay import run as replay
from tests.conformance.harness import PORTS, START_NS, Scenario
from wire import pcap

GOLDENS = Path(__file__).parent / "goldens"
MakeScenario = Callable[..., Scenario]


@pytest.fixture(params=["O", "V"])
def egress(request: pytest.FixtureRequest) -> str:
    """Every NAT row runs on both egresses."""
    return str(request.param)


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeScenario]:
    """Make a scenario; at the end of the test its transcript is compared and its input replayed."""
    made: list[Scenario] = []

    def build(*args: object, **options: object) -> Scenario:
        folder = tmp_path / f"scenario{len(made)}"
        folder.mkdir()
        made.append(Scenario(folder, *args, **options))  # type: ignore[arg-type] # handed through as they are
        return made[-1]

    yield build
    if not made:
        return
    moved = {port for scenario in made for _, port, _ in (*scenario.taken, *scenario.given)}
    request.node.user_properties.append(("egresses", "".join(sorted(moved & {"O", "V"}))))
    transcript = "\n".join(line for scenario in made for line in (*scenario.transcript, "")) + "\n"
    _compare(request, transcript)
    for scenario in made:
        if scenario.replayable and scenario.taken:
            _replay(scenario)


def _compare(request: pytest.FixtureRequest, transcript: str) -> None:
    """One golden file a test: `goldens/<module>/<test>.txt`. Long transcripts (floods, huge datagrams) are kept as
    their digest."""
    import hashlib  # noqa: PLC0415 - used here only

    lines = transcript.count("\n")
    if lines > 120 or len(transcript) > 50_000:
        transcript = f"{lines} lines, sha256 {hashlib.sha256(transcript.encode()).hexdigest()}\n"
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name)
    path = GOLDENS / request.node.path.stem / f"{name}.txt"
    if request.config.getoption("--update-goldens"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(transcript)
        return
    assert path.exists(), f"no golden transcript {path.name}: run pytest --update-goldens and read it"
    assert transcript == path.read_text(), f"the transcript differs from {path}"


def _replay(scenario: Scenario) -> None:
    """The same input through `bridge.replay.run`: the same frames, at the same times, byte for byte."""
    folder = scenario.path.parent
    inputs = []
    # A capture holds one port's packets; ties between ports go by the order of the inputs, so each run of packets of
    # one port within one time step gets a capture of its own, in order.
    runs: list[tuple[str, list[tuple[int, bytes]]]] = []
    for at, port, frame in scenario.taken:
        if not runs or runs[-1][0] != port:
            runs.append((port, []))
        runs[-1][1].append((at, frame))
    for number, (port, records) in enumerate(runs):
        path = folder / f"in{number}.pcap"
        with path.open("wb") as file:
            writer = pcap.PcapWriter(file, pcap.LINK_ETHERNET if port in scenario.ethernet else pcap.LINK_RAW)
            for at, frame in records:
                writer.write(at, frame)
        inputs.append(replay.Input(PORTS.get(port, port), path))
    config = load(scenario.path, "replay")
    last = scenario.taken[-1][0]
    out = folder / "out"
    replay.run(
        config,
        routes_from(config),
        inputs,
        out,
        linger_ns=max(scenario.now - last, 0),
        announce=scenario.announced,
        seed=scenario.seed,
    )
    letters = dict.fromkeys((*PORTS, *(where for _, where, _ in scenario.given)))
    for letter in letters:
        port = PORTS.get(letter, letter)
        with (out / f"{port.replace(':', '-')}.pcap").open("rb") as file:
            frames = [(record.timestamp_ns, bytes(record.data)) for record in pcap.read(file, port)]
        expected = [(at, frame) for at, where, frame in scenario.given if where == letter]
        assert frames == expected, f"replay gives other frames on {port}"
    assert scenario.taken[0][0] >= START_NS
