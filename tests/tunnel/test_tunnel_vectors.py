"""The known answers: the transcript that two other implementations agree on, constants, key derivation, cookies."""

from __future__ import annotations

import hashlib
import hmac as standard_hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import noise, primitives, tai64n
from tunnel.cookies import CookieDesk, CookieJar
from tunnel.effects import Endpoint
from tunnel.messages import MessageKind, index_at, kind_of
from tunnel.primitives import Cipher, public_key


@pytest.fixture(params=["psk0", "psk"])
def vector(request: pytest.FixtureRequest, shared: Path) -> dict[str, Any]:
    case = json.loads((shared / "vectors/wireguard.json").read_text())[request.param]
    return {name: int(value, 16) if name.startswith("idx") else bytes.fromhex(value) for name, value in case.items()}


def transcript(vector: dict[str, Any]) -> tuple[bytes, bytes, noise.SessionKeys, noise.SessionKeys]:
    """Both sides of the handshake of a vector: the two messages, the initiator's and the responder's keys."""
    ours, theirs = noise.LocalKeys(vector["si"]), noise.LocalKeys(vector["sr"])
    to_responder = noise.RemoteKeys(ours, theirs.public, vector["psk"])
    to_initiator = noise.RemoteKeys(theirs, ours.public, vector["psk"])
    body, state = noise.initiate(ours, to_responder, vector["ei"], vector["tai64n"], vector["idx_i"])
    initiation = CookieJar(theirs.public).finish(body, 0)
    called = noise.read_static(theirs, initiation)
    assert called is not None
    assert called.static == ours.public
    assert noise.read_timestamp(called, to_initiator, initiation) == vector["tai64n"]
    answer = noise.respond(called, to_initiator, vector["er"], vector["idx_r"])
    assert answer is not None
    response = CookieJar(ours.public).finish(answer[0], 0)
    keys = noise.finish(state, ours, to_responder, response)
    assert keys is not None
    return initiation, response, keys, answer[1]


def test_w1_handshake_is_the_known_transcript_byte_for_byte(vector: dict[str, Any]) -> None:
    initiation, response, _, _ = transcript(vector)
    assert public_key(vector["si"]) == vector["pub_i"]
    assert public_key(vector["sr"]) == vector["pub_r"]
    assert initiation == vector["initiation"]
    assert response == vector["response"]
    assert [kind_of(initiation), kind_of(response)] == [MessageKind.INITIATION, MessageKind.RESPONSE]


def test_w1_data_and_keepalive_are_the_known_transcript_byte_for_byte(vector: dict[str, Any]) -> None:
    _, _, initiator, responder = transcript(vector)
    packet = vector["data0_i2r_plain"]
    cipher = Cipher()
    assert cipher.seal_burst(initiator.send, vector["idx_r"], 0, [packet], 1420) == [vector["data0_i2r"]]
    assert cipher.seal_burst(responder.send, vector["idx_i"], 0, [b""], 1420) == [vector["keepalive0_r2i"]]
    jobs = [(responder.receive, vector["data0_i2r"]), (initiator.receive, vector["keepalive0_r2i"])]
    assert cipher.open_burst(jobs) == [packet.ljust(32, b"\0"), b""]


def test_w1_session_keys_are_the_known_ones(vector: dict[str, Any]) -> None:
    _, _, initiator, responder = transcript(vector)
    for key, known in [
        (initiator.send, "key_i2r"),
        (responder.receive, "key_i2r"),
        (initiator.receive, "key_r2i"),
        (responder.send, "key_r2i"),
    ]:
        assert bytes(primitives.ffi.buffer(key.pointer, 32)) == vector[known]


def test_w25_w26_cookie_and_its_reply_and_mac2_are_the_known_ones(vector: dict[str, Any]) -> None:
    source = Endpoint(vector["cookie_src"][:4], int.from_bytes(vector["cookie_src"][4:], "big"))
    assert primitives.mac(vector["cookie_secret"], source.packed()) == vector["cookie"]
    given_out = iter([vector["cookie_reply_to_initiation"][8:32], vector["cookie_secret"]])
    desk = CookieDesk(vector["pub_r"], lambda size: next(given_out))
    assert desk.reply(vector["initiation"], source, 0) == vector["cookie_reply_to_initiation"]
    jar = CookieJar(vector["pub_r"])
    assert jar.finish(vector["initiation"][:116], 0) == vector["initiation"]
    assert jar.accept_reply(vector["cookie_reply_to_initiation"], 0)
    assert jar.finish(vector["initiation"][:116], 1) == vector["initiation_with_mac2"]
    assert desk.is_proven(vector["initiation_with_mac2"], source, 1)
    assert not desk.is_proven(vector["initiation_with_mac2"], source._replace(port=1), 1)
    assert index_at(vector["cookie_reply_to_initiation"], 4) == vector["idx_i"]


def test_constants_are_those_of_the_protocol() -> None:
    assert noise.CHAIN_START.hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    assert noise.HASH_START.hex() == "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"


def test_w2_key_derivation_has_the_known_outputs() -> None:
    starts = ["6f0e5ad3", "df1194df", "fac6e274"]
    outputs = [
        primitives.kdf3(b"test-key", b"test-input"),
        primitives.kdf2(b"test-key", b"test-input"),
        (primitives.kdf1(b"test-key", b"test-input"),),
    ]
    for found in outputs:
        assert [part.hex()[:8] for part in found] == starts[: len(found)]
    assert outputs[0][0].hex() == "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633"


@given(st.binary(max_size=64), st.binary(max_size=200))
def test_hmac_agrees_with_the_standard_library(key: bytes, data: bytes) -> None:
    assert primitives.hmac(key, data) == standard_hmac.new(key, data, hashlib.blake2s).digest()


def test_w5_stamp_is_tai64n_and_whitened() -> None:
    assert tai64n.stamp(1_700_000_000_000_000_000).hex() == "400000006553f10a00000000"
    assert tai64n.stamp(1_700_000_000_123_456_789)[8:] == (0x07000000).to_bytes(4, "big")
    assert tai64n.stamp(-5) == tai64n.stamp(0)


@given(st.integers(0, 1 << 63), st.integers(0, 1 << 63))
def test_w5_stamps_grow_strictly_whatever_the_wall_clock_does(one: int, two: int) -> None:
    last = tai64n.stamp(one)
    following = tai64n.later(two, last)
    assert following > last
    assert len(following) == 12
    assert int.from_bytes(following[8:], "big") < 1_000_000_000
    assert int.from_bytes(following[9:], "big") == 0


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), (2**255 - 19).to_bytes(32, "little")])
def test_w4_points_of_low_order_are_refused(point: bytes) -> None:
    assert primitives.shared_secret(b"\x07" * 32, point) is None
    with pytest.raises(ValueError, match="low order"):
        noise.RemoteKeys(noise.LocalKeys(b"\x07" * 32), point)


def test_wrong_sizes_never_reach_the_library() -> None:
    for call in [
        lambda: primitives.public_key(b"short"),
        lambda: primitives.shared_secret(b"\1" * 32, b"short"),
        lambda: primitives.xseal(bytearray(32), b"short", b"", b""),
        lambda: primitives.TransportKey(bytearray(31)),
        lambda: Cipher().seal_burst(primitives.TransportKey(bytearray(32)), 0, 0, [bytes(70_000)], 1420),
        lambda: Cipher().open_burst([(primitives.TransportKey(bytearray(32)), bytes(70_000))]),
        lambda: noise.LocalKeys(b""),
    ]:
        with pytest.raises(ValueError, match="bytes"):
            call()


def test_handshake_secrets_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    wiped: list[bytes] = []

    def witness(secret: bytearray) -> None:
        wiped.append(bytes(secret))
        primitives.wipe(secret)
        assert not any(secret)

    monkeypatch.setattr(noise, "wipe", witness)
    ours, theirs = noise.LocalKeys(b"\1" * 32), noise.LocalKeys(b"\2" * 32)
    body, state = noise.initiate(ours, noise.RemoteKeys(ours, theirs.public), b"\3" * 32, bytes(12), 1)
    called = noise.read_static(theirs, body)
    assert called is not None
    caller = noise.RemoteKeys(theirs, ours.public)
    assert noise.read_timestamp(called, caller, body) == bytes(12)
    assert noise.respond(called, caller, b"\4" * 32, 2) is not None
    assert b"\4" * 32 in wiped
    for one, other in ((b"\3" * 32, theirs.public), (theirs.private, body[8:40]), (b"\4" * 32, body[8:40])):
        assert bytes(primitives.shared_secret(one, other) or b"") in wiped
    assert any(state.ephemeral)
    state.wipe()
    ours.wipe()
    assert not any(state.ephemeral + state.chain + ours.private)
