"""The cryptography, all of it PyNaCl's libsodium and `hashlib`: nothing here knows the protocol's messages.

X25519 (RFC 7748: `public_key`, `shared_secret`), ChaCha20-Poly1305 (RFC 8439: `seal`, `open_sealed`; `Cipher` for
bursts of data), XChaCha20-Poly1305 (`xseal`, `xopen`), BLAKE2s (RFC 7693: `digest`, `mac`), HMAC-BLAKE2s (RFC 2104)
and the key derivation of Noise 4.3 (`kdf1` to `kdf3`).

`Cipher` calls libsodium by cffi: `bytes` are handed over without a copy and the GIL is released during the call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2s
from typing import Any, Final, Protocol

from nacl._sodium import ffi, lib

KEY_BYTES: Final = 32
HASH_BYTES: Final = 32
TAG_BYTES: Final = 16
XNONCE_BYTES: Final = 24
HEADER_BYTES: Final = 16
MAC_BYTES: Final = 16

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_BUFFER = ffi.typeof("unsigned char[]")
_NULL = ffi.NULL
_ZEROS = bytes(16)
_HEADER = struct.Struct("<IIQ")
_NONCE = struct.Struct("<IQ")
_DATA = 4
# An outer datagram cannot be longer, so neither can its content.
_PLAIN_BYTES = 65_536
_SCRATCH_BYTES = _PLAIN_BYTES + HEADER_BYTES + TAG_BYTES

_seal = lib.crypto_aead_chacha20poly1305_ietf_encrypt
_open = lib.crypto_aead_chacha20poly1305_ietf_decrypt
_xseal = lib.crypto_aead_xchacha20poly1305_ietf_encrypt
_xopen = lib.crypto_aead_xchacha20poly1305_ietf_decrypt

# libsodium uses its slowest, portable code, at half the speed, until it has looked at the processor. A second
# call does nothing; it fails only where there is no random source, which nothing here uses.
if lib.sodium_init() < 0:
    raise RuntimeError("libsodium cannot be used here")

Bytes = bytes | bytearray


def wipe(secret: bytearray) -> None:
    """Overwrite a secret where it lies."""
    lib.sodium_memzero(ffi.from_buffer(_BUFFER, secret), len(secret))


def is_equal(one: bytes, other: bytes) -> bool:
    """Comparison in a time that depends on nothing but the length."""
    return len(one) == len(other) and lib.sodium_memcmp(one, other, len(one)) == 0


def _expect(value: Bytes, size: int) -> None:
    """libsodium reads as many bytes as the algorithm has, whatever it is given."""
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes where {size} belong")


# X25519


def public_key(private: Bytes) -> bytes:
    """The public key of a private one, both 32 bytes (`ValueError`); the private one is clamped by libsodium."""
    _expect(private, KEY_BYTES)
    point = bytearray(KEY_BYTES)
    lib.crypto_scalarmult_base(ffi.from_buffer(_BUFFER, point), ffi.from_buffer(_BUFFER, private))
    return bytes(point)


def shared_secret(private: Bytes, public: bytes) -> bytearray | None:
    """The Diffie-Hellman secret; None where it is all zero: the public key is a point of low order."""
    _expect(private, KEY_BYTES)
    _expect(public, KEY_BYTES)
    secret = bytearray(KEY_BYTES)
    failed = lib.crypto_scalarmult(ffi.from_buffer(_BUFFER, secret), ffi.from_buffer(_BUFFER, private), public)
    # libsodium has the check; a build without it must not turn it into a silent acceptance.
    return None if failed or is_equal(bytes(secret), bytes(KEY_BYTES)) else secret


def is_low_order(public: bytes) -> bool:
    """True of the few points that are no one's key: with every private key they give the same secret, zero."""
    secret = shared_secret(bytes(range(KEY_BYTES)), public)
    if secret is None:
        return True
    wipe(secret)
    return False


# Hashes


def digest(*parts: Bytes) -> bytes:
    """BLAKE2s-256 over the parts."""
    state = blake2s(parts[0])
    for part in parts[1:]:
        state.update(part)
    return state.digest()


def mac(key: Bytes, data: Bytes) -> bytes:
    """BLAKE2s-128, keyed."""
    return blake2s(data, digest_size=MAC_BYTES, key=key).digest()


def hmac(key: Bytes, data: Bytes) -> bytes:
    """HMAC-BLAKE2s-256; a key of at most 64 bytes."""
    padded = key.ljust(_BLOCK_BYTES, b"\0")
    inner = blake2s(padded.translate(_INNER))
    inner.update(data)
    outer = blake2s(padded.translate(_OUTER))
    outer.update(inner.digest())
    return outer.digest()


def _kdf(chaining_key: Bytes, material: Bytes, outputs: int) -> list[bytearray]:
    extracted = hmac(chaining_key, material)
    found: list[bytearray] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac(extracted, last + bytes([number]))
        found.append(bytearray(last))
    return found


def kdf1(chaining_key: Bytes, material: Bytes) -> bytearray:
    """Noise's HKDF with one output."""
    return _kdf(chaining_key, material, 1)[0]


def kdf2(chaining_key: Bytes, material: Bytes) -> tuple[bytearray, bytearray]:
    """Noise's HKDF with two outputs."""
    one, two = _kdf(chaining_key, material, 2)
    return one, two


def kdf3(chaining_key: Bytes, material: Bytes) -> tuple[bytearray, bytearray, bytearray]:
    """Noise's HKDF with three outputs."""
    one, two, three = _kdf(chaining_key, material, 3)
    return one, two, three


# Authenticated encryption of handshake fields


def seal(key: bytearray, counter: int, plain: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305: ciphertext and tag."""
    return _sealed(_seal, key, _NONCE.pack(0, counter), plain, associated)


def open_sealed(key: bytearray, counter: int, sealed: bytes, associated: bytes) -> bytes | None:
    """The plaintext; None where the tag does not fit."""
    return _opened(_open, key, _NONCE.pack(0, counter), sealed, associated)


def xseal(key: bytearray, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    """XChaCha20-Poly1305 with a nonce of 24 bytes: ciphertext and tag."""
    _expect(nonce, XNONCE_BYTES)
    return _sealed(_xseal, key, nonce, plain, associated)


def xopen(key: bytearray, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """The plaintext; None where the tag does not fit."""
    _expect(nonce, XNONCE_BYTES)
    return _opened(_xopen, key, nonce, sealed, associated)


def _sealed(function: Any, key: bytearray, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    out = bytearray(len(plain) + TAG_BYTES)
    target = ffi.from_buffer(_BUFFER, out)
    size = len(plain)
    function(target, _NULL, plain, size, associated, len(associated), _NULL, nonce, ffi.from_buffer(_BUFFER, key))
    return bytes(out)


def _opened(function: Any, key: bytearray, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    out = bytearray(len(sealed) - TAG_BYTES)
    target = ffi.from_buffer(_BUFFER, out)
    source = ffi.from_buffer(_BUFFER, key)
    failed = function(target, _NULL, _NULL, sealed, len(sealed), associated, len(associated), nonce, source)
    return None if failed else bytes(out)


# Bursts of data


class TransportKey:
    """A key of one direction, 32 bytes that `wipe` overwrites. `pointer`: for cffi; `address`: of its bytes:
    compiled code reads it there, and holds on to the key meanwhile."""

    __slots__ = ("_secret", "address", "pointer")

    def __init__(self, secret: bytearray) -> None:
        _expect(secret, KEY_BYTES)
        self._secret = secret
        self.pointer: Any = ffi.from_buffer(_BUFFER, secret)  # while it lives, nobody can resize the bytearray
        self.address = int(ffi.cast("uintptr_t", self.pointer))

    def wipe(self) -> None:
        """Overwrite the key; it opens and seals nothing afterwards that a peer would know."""
        wipe(self._secret)

    @property
    def is_wiped(self) -> bool:
        """True once nothing but zeros is left."""
        return not any(self._secret)


def seal_under(key: TransportKey, counter: int, plain: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305 with a session's key: ciphertext and tag."""
    out = bytearray(len(plain) + TAG_BYTES)
    nonce = _NONCE.pack(0, counter)
    target = ffi.from_buffer(_BUFFER, out)
    _seal(target, _NULL, plain, len(plain), associated, len(associated), _NULL, nonce, key.pointer)
    return bytes(out)


def open_under(key: TransportKey, counter: int, sealed: bytes, associated: bytes) -> bytes | None:
    """The plaintext; None where the tag does not fit. `sealed` holds a tag at least."""
    out = bytearray(len(sealed) - TAG_BYTES)
    nonce = _NONCE.pack(0, counter)
    target = ffi.from_buffer(_BUFFER, out)
    failed = _open(target, _NULL, _NULL, sealed, len(sealed), associated, len(associated), nonce, key.pointer)
    return None if failed else bytes(out)


class BurstCipher(Protocol):
    """Seals and opens data. The results stand in the order of the arguments.

    Both are functions of their arguments alone (the nonce is explicit), so an implementation may spread a burst over
    cores; nothing of a session or a peer is touched in the meantime.
    """

    def seal_burst(
        self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
    ) -> list[bytes]:
        """Data messages to the index `receiver` with the counters `first`, `first` + 1, ..."""

    def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
        """The padded plaintext of each data message (32 bytes at least); None where the tag does not fit."""


class Cipher:
    """Seals and opens one packet after the other on the caller's thread. Two threads need two of them."""

    __slots__ = ("_ahead", "_sealed", "_view", "_whole")

    def __init__(self) -> None:
        self._whole = ffi.new("unsigned char[]", _SCRATCH_BYTES)
        self._view = ffi.buffer(self._whole)
        self._ahead = ffi.new("unsigned char[]", _SCRATCH_BYTES)
        self._sealed = ffi.buffer(self._ahead)

    def seal_burst(
        self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
    ) -> list[bytes]:
        """As `BurstCipher`. A packet is padded with zeros to a multiple of 16, but not beyond `mtu_bytes`."""
        sealed: list[bytes] = []
        view = self._sealed
        target = self._ahead + HEADER_BYTES
        pointer = key.pointer
        counter = first
        for packet in packets:
            plain = packet
            size = len(packet)
            if size > _PLAIN_BYTES:
                raise ValueError(f"a packet of {size} bytes")
            if size & 15 and size < mtu_bytes:
                padded = min(size + 15 & ~15, mtu_bytes)
                plain = packet + _ZEROS[: padded - size]
                size = padded
            _HEADER.pack_into(view, 0, _DATA, receiver, counter)
            _seal(target, _NULL, plain, size, _NULL, 0, _NULL, _NONCE.pack(0, counter), pointer)
            sealed.append(view[: size + HEADER_BYTES + TAG_BYTES])
            counter += 1
        return sealed

    def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
        """As `BurstCipher`."""
        opened: list[bytes | None] = []
        view = self._view
        target = self._whole
        for key, datagram in jobs:
            sealed = datagram[HEADER_BYTES:]
            size = len(sealed)
            if not TAG_BYTES <= size <= _PLAIN_BYTES + TAG_BYTES:
                raise ValueError(f"a data message of {len(datagram)} bytes")
            nonce = b"\0\0\0\0" + datagram[8:HEADER_BYTES]
            failed = _open(target, _NULL, _NULL, sealed, size, _NULL, 0, nonce, key.pointer)
            opened.append(None if failed else view[: size - TAG_BYTES])
        return opened
