"""The tunnel's fuzzer: it runs, reaches every refusal, is deterministic, and its checks can fail."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from trials.fuzz import run as fuzz
from trials.fuzz.hostile import Broken, Failure
from trials.fuzz.targets import tunnel as fuzz_tunnel
from trials.fuzz.targets.tunnel import AUTHENTIC, FIELDS, STAGES, STRANGERS_HOME, TunnelRound
from tunnel.cookies import CookieDesk
from tunnel.effects import Received
from tunnel.endpoint import Tunnel
from tunnel.messages import MessageKind
from tunnel.peers.peer import Peer
from tunnel.primitives import Cipher, TransportKey
from tunnel.replay import ReplayWindow
from wire.drop import Drop


def test_some_thousand_hostile_messages_break_nothing_and_reach_every_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """W27, W4: silence for whatever does not authenticate, in every state."""
    drops: Counter[Drop] = Counter()
    receive = Tunnel.receive

    def counted(self: Tunnel, burst: Sequence[Received], now: int) -> object:
        effects = receive(self, burst, now)
        drops.update(effects.drops)
        return effects

    monkeypatch.setattr(Tunnel, "receive", counted)
    assert fuzz_tunnel.run(60, seed=1, most=12_000) >= 12_000
    refusals = (
        "MALFORMED UNKNOWN_INDEX EXPIRED REPLAY AUTHENTICATION MAC1 HANDSHAKE UNKNOWN_PEER OLD_TIMESTAMP COOKIE "
        "COOKIE_SENT SOURCE_LIMIT"
    )
    assert {Drop[f"TUNNEL_{name}"] for name in refusals.split()} <= drops.keys()


def test_every_type_of_message_has_its_fields_and_its_authenticated_part() -> None:
    assert AUTHENTIC.keys() == FIELDS.keys() == set(MessageKind)


def test_the_same_seed_gives_the_same_messages() -> None:
    def messages(seed: int) -> list[bytes]:
        round_ = TunnelRound(random.Random(seed), [])
        round_.held = next(STAGES[3](round_))
        return [round_.hostile() for _ in range(200)]

    assert messages(7) == messages(7)
    assert messages(7) != messages(8)


class Gullible(Cipher):
    """Takes every tag."""

    def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
        return [datagram[16:-16] for _, datagram in jobs]


def test_a_cipher_that_takes_every_tag_is_found() -> None:
    with pytest.raises(Broken, match=r"^input \d+, stage \w+: 04000000") as caught:
        fuzz_tunnel.run(60, seed=1, most=20_000, cipher=Gullible())
    assert isinstance(caught.value.__cause__, Failure)


def test_a_window_that_moves_before_authentication_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayWindow, "may_be_new", ReplayWindow.accept)
    with pytest.raises(Broken):
        fuzz_tunnel.run(60, seed=1, most=20_000)


def test_an_endpoint_that_follows_anybody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def consume(self: Peer, message: bytes, source: object, now: int, out: object) -> None:
        self.endpoint = source  # type: ignore[assignment]
        original(self, message, source, now, out)  # type: ignore[arg-type]

    original = Peer.consume_response
    monkeypatch.setattr(Peer, "consume_response", consume)
    with pytest.raises(Broken, match="stage pending"):
        fuzz_tunnel.run(60, seed=1, most=40_000)


def test_an_answer_to_who_proved_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CookieDesk, "is_addressed", lambda *_: True)
    monkeypatch.setattr("tunnel.cookies.LOAD_STICKY_NS", -1)
    round_ = TunnelRound(random.Random(1), [])
    round_.held = []
    monkeypatch.setattr("tunnel.cookies.LoadGauge.is_under_load", lambda *_: True)
    with pytest.raises(Failure, match="without load"):
        round_.fire(b"\1\0\0\0" + bytes(144), STRANGERS_HOME)


def test_targets_take_turns_and_a_failure_says_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    turns: list[tuple[str, int]] = []

    def target(name: str, broken_at: int) -> fuzz.TargetTurn:
        def run(seconds: float, seed: int) -> int:
            turns.append((name, seed))
            if seed == broken_at:
                raise Broken("input 3: 00")
            return 5

        return run

    with pytest.raises(Broken):
        fuzz.in_turns({"one": target("one", -1), "two": target("two", 13)}, 60, 10)
    assert turns == [("one", 10), ("two", 11), ("one", 12), ("two", 13)]
    assert capsys.readouterr().err == "repeat with: --how blind --target two --seed 13\ninput 3: 00\n"
    assert fuzz.in_turns({"one": target("one", -1), "two": target("two", -1)}, 0, 1) == {"one": 5, "two": 5}
