"""The fuzz target for envelopes: it runs, it is deterministic, and its checks can fail."""

from __future__ import annotations

import random

import pytest

from trials.fuzz.hostile import Failure
from trials.fuzz.targets import relay as fuzz_relay
from tunnel.effects import Effects
from tunnel.envelope import HOPS, Envelope, node_id
from tunnel.messages import ENVELOPE_BYTES

BODY = b"\4\0\0\0" + bytes(60)


def envelope_to(round_: fuzz_relay.RelayRound, by: str, to: str, hops: int = HOPS) -> bytes:
    out = Effects()
    envelope = Envelope(hops, node_id("alice"), node_id("bob"), BODY)
    assert round_.nodes[by]._by_name[to].carry([envelope], round_.now, out)
    return out.datagrams[0].data


def test_a_few_thousand_hostile_envelopes_break_nothing() -> None:
    assert fuzz_relay.run(30, seed=1, most=2000) == 2000


def test_the_same_seed_gives_the_same_envelopes() -> None:
    first, second = (fuzz_relay.RelayRound(random.Random(7)) for _ in range(2))
    assert [first.attack() for _ in range(50)] == [second.attack() for _ in range(50)]


def test_an_envelope_that_keeps_its_hops_or_changes_its_message_is_found() -> None:
    round_ = fuzz_relay.RelayRound(random.Random(1))
    came = envelope_to(round_, "alice", "relay")
    good = envelope_to(round_, "relay", "bob", HOPS - 1)
    round_.look_at_passed(came, good, fuzz_relay.HOMES["bob"])
    with pytest.raises(Failure, match="passed on to bob"):
        round_.look_at_passed(came, envelope_to(round_, "relay", "bob"), fuzz_relay.HOMES["bob"])
    with pytest.raises(Failure, match="passed on to bob"):
        round_.look_at_passed(came, good, fuzz_relay.HOMES["mallory"])
    with pytest.raises(Failure, match="was changed"):
        round_.look_at_passed(came[:-1] + b"\1", good, fuzz_relay.HOMES["bob"])
    with pytest.raises(Failure, match="nobody can open"):
        round_.look_at_passed(came, good[:ENVELOPE_BYTES] + bytes(64), fuzz_relay.HOMES["bob"])


def test_a_packet_that_nobody_sent_or_that_comes_twice_is_found() -> None:
    round_ = fuzz_relay.RelayRound(random.Random(1))
    effects = Effects()
    effects.packets.append(("alice", fuzz_relay.packet(1)))
    with pytest.raises(Failure, match="not sent, or is there already"):
        round_.look_at_packets("bob", effects)
