"""The handshake, Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s: two messages without their MACs, and the two keys.

The initiator calls `initiate` and `finish`. The responder calls `read_static` (the caller's key), `read_timestamp` (so
that a recording is refused) and `respond`. The result is None for everything that does not authenticate; nothing tells
which field failed. Ephemeral keys are parameters: randomness comes from outside. WireGuard whitepaper 5.4.2, 5.4.3,
5.4.5.

Wiping: private keys, chaining keys, Diffie-Hellman secrets and session keys are bytearrays, overwritten once they are
done with. Python does not allow more: values that `hashlib` computes on the way (HMAC states, the digests that become
those bytearrays) and the bytes that the random source gave are immutable; they are dropped at once and their memory is
reused, but nobody overwrites it. Nor can memory be kept out of swap and core dumps from here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tunnel.messages import INDEX, INITIATION_HEAD, RESPONSE_HEAD
from tunnel.primitives import (
    Bytes,
    TransportKey,
    digest,
    kdf1,
    kdf2,
    kdf3,
    open_sealed,
    public_key,
    seal,
    shared_secret,
    wipe,
)

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
CHAIN_START: Final = digest(CONSTRUCTION)
HASH_START: Final = digest(CHAIN_START, IDENTIFIER)
NO_PSK: Final = bytes(32)


class LocalKeys:
    """Our identity: a private key (32 bytes) in a bytearray of our own, and values derived from its public key."""

    __slots__ = ("hash_start", "private", "public")

    def __init__(self, private: Bytes) -> None:
        if len(private) != 32:
            raise ValueError("a private key has 32 bytes")
        self.private = bytearray(private)
        self.public = public_key(self.private)
        self.hash_start = digest(HASH_START, self.public)

    def wipe(self) -> None:
        """Overwrite the private key."""
        wipe(self.private)


class RemoteKeys:
    """A peer's identity: its public key, the pre-shared key, and the secret of both static keys.

    `ValueError` where a length is wrong or the public key is a point of low order: such a peer could never answer.
    """

    __slots__ = ("hash_start", "psk", "public", "static_static")

    def __init__(self, local: LocalKeys, public: bytes, psk: Bytes = NO_PSK) -> None:
        if len(public) != 32 or len(psk) != 32:
            raise ValueError("public and pre-shared keys have 32 bytes")
        secret = shared_secret(local.private, public)
        if secret is None:
            raise ValueError("the public key is a point of low order")
        self.public = public
        self.psk = bytearray(psk)
        self.static_static = secret
        self.hash_start = digest(HASH_START, public)

    def wipe(self) -> None:
        """Overwrite the secrets."""
        wipe(self.psk)
        wipe(self.static_static)


class SessionKeys(NamedTuple):
    """The keys that a handshake gives, one for each direction."""

    send: TransportKey
    receive: TransportKey


class Initiated:
    """The initiator's state until the response comes."""

    __slots__ = ("chain", "ephemeral", "hash")

    def __init__(self, ephemeral: bytearray, chain: bytearray, transcript: bytes) -> None:
        self.ephemeral = ephemeral
        self.chain = chain
        self.hash = transcript

    def wipe(self) -> None:
        """Overwrite the secrets."""
        wipe(self.ephemeral)
        wipe(self.chain)


class Called:
    """The responder's state of an initiation: the static key that the caller claims, and its ephemeral key."""

    __slots__ = ("chain", "ephemeral", "hash", "sender", "static")

    def __init__(self, sender: int, ephemeral: bytes, static: bytes, chain: bytearray, transcript: bytes) -> None:
        self.sender = sender
        self.ephemeral = ephemeral
        self.static = static
        self.chain = chain
        self.hash = transcript

    def wipe(self) -> None:
        """Overwrite the secrets."""
        wipe(self.chain)


def initiate(
    local: LocalKeys, remote: RemoteKeys, ephemeral: bytes, timestamp: bytes, sender: int
) -> tuple[bytes, Initiated]:
    """An initiation up to mac1 (116 bytes), and the state until its response."""
    private = bytearray(ephemeral)
    public = public_key(private)
    chain = kdf1(CHAIN_START, public)
    transcript = digest(remote.hash_start, public)
    secret = shared_secret(private, remote.public)
    assert secret is not None, "RemoteKeys refuses points of low order"
    chain, key = _mix(chain, secret)
    static = seal(key, 0, local.public, transcript)
    transcript = digest(transcript, static)
    wipe(key)
    chain, key = _mix(chain, remote.static_static, keep=True)
    stamp = seal(key, 0, timestamp, transcript)
    transcript = digest(transcript, stamp)
    wipe(key)
    body = b"".join((INITIATION_HEAD, INDEX.pack(sender), public, static, stamp))
    return body, Initiated(private, chain, transcript)


def read_static(local: LocalKeys, message: bytes) -> Called | None:
    """The caller's static key out of an initiation."""
    public = message[8:40]
    static = message[40:88]
    chain = kdf1(CHAIN_START, public)
    transcript = digest(local.hash_start, public)
    secret = shared_secret(local.private, public)
    if secret is None:
        return None
    chain, key = _mix(chain, secret)
    caller = open_sealed(key, 0, static, transcript)
    wipe(key)
    if caller is None:
        wipe(chain)
        return None
    return Called(INDEX.unpack_from(message, 4)[0], public, caller, chain, digest(transcript, static))


def read_timestamp(called: Called, remote: RemoteKeys, message: bytes) -> bytes | None:
    """The TAI64N stamp (12 bytes): after this the initiation is authenticated, though it may be a recording."""
    sealed = message[88:116]
    called.chain, key = _mix(called.chain, remote.static_static, keep=True)
    timestamp = open_sealed(key, 0, sealed, called.hash)
    wipe(key)
    called.hash = digest(called.hash, sealed)
    return timestamp


def respond(called: Called, remote: RemoteKeys, ephemeral: bytes, sender: int) -> tuple[bytes, SessionKeys] | None:
    """A response up to mac1 (60 bytes) and the keys; the state is used up. None: a point of low order."""
    private = bytearray(ephemeral)
    public = public_key(private)
    chain = _step(called.chain, public)
    transcript = digest(called.hash, public)
    one = shared_secret(private, called.ephemeral)
    two = shared_secret(private, remote.public)
    wipe(private)
    if one is None or two is None:
        return None
    chain = _step(_step(chain, one), two)
    wipe(one)
    wipe(two)
    chain, temporary, key = _mix_psk(chain, remote.psk)
    transcript = digest(transcript, temporary)
    empty = seal(key, 0, b"", transcript)
    wipe(key)
    body = b"".join((RESPONSE_HEAD, INDEX.pack(sender), INDEX.pack(called.sender), public, empty))
    initiators, responders = _split(chain)
    return body, SessionKeys(send=responders, receive=initiators)


def finish(state: Initiated, local: LocalKeys, remote: RemoteKeys, message: bytes) -> SessionKeys | None:
    """The keys out of a response. The state is left as it was: a forged response must not end the handshake."""
    public = message[12:44]
    one = shared_secret(state.ephemeral, public)
    two = shared_secret(local.private, public)
    if one is None or two is None:
        return None
    chain = _step(_step(kdf1(state.chain, public), one), two)
    wipe(one)
    wipe(two)
    chain, temporary, key = _mix_psk(chain, remote.psk)
    transcript = digest(state.hash, public)
    transcript = digest(transcript, temporary)
    opened = open_sealed(key, 0, message[44:60], transcript)
    wipe(key)
    if opened is None:
        wipe(chain)
        return None
    initiators, responders = _split(chain)
    return SessionKeys(send=initiators, receive=responders)


def _step(chain: bytearray, material: Bytes) -> bytearray:
    following = kdf1(chain, material)
    wipe(chain)
    return following


def _mix(chain: bytearray, secret: bytearray, *, keep: bool = False) -> tuple[bytearray, bytearray]:
    following, key = kdf2(chain, secret)
    wipe(chain)
    if not keep:
        wipe(secret)
    return following, key


def _mix_psk(chain: bytearray, psk: bytearray) -> tuple[bytearray, bytearray, bytearray]:
    following, temporary, key = kdf3(chain, psk)
    wipe(chain)
    return following, temporary, key


def _split(chain: bytearray) -> tuple[TransportKey, TransportKey]:
    initiators, responders = kdf2(chain, b"")
    wipe(chain)
    return TransportKey(initiators), TransportKey(responders)
