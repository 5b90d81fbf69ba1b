"""Keys as `wg` makes them."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

# RFC 7748 6.1: Alice's key pair
PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")


def bridgectl(*words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "bridgectl", *words], input=text, capture_output=True, check=False)


def test_a_private_key_is_32_clamped_bytes_in_base64_and_never_the_same() -> None:
    first, second = (bridgectl("genkey").stdout for _ in range(2))
    assert first != second
    key = base64.b64decode(first.strip(), validate=True)
    assert len(key) == 32
    assert key[0] & 7 == 0
    assert key[31] & 0xC0 == 0x40


def test_a_public_key_is_the_one_of_rfc_7748() -> None:
    printed = bridgectl("pubkey", text=base64.b64encode(PRIVATE) + b"\n")
    assert printed.returncode == 0
    assert base64.b64decode(printed.stdout) == PUBLIC


@pytest.mark.parametrize("text", [b"", b"short", b"!" * 44, base64.b64encode(bytes(31)), base64.b64encode(bytes(33))])
def test_what_is_no_key_is_refused_without_repeating_it(text: bytes) -> None:
    printed = bridgectl("pubkey", text=text)
    assert printed.returncode == 1
    assert b"no private key" in printed.stderr
    assert not text.strip() or text not in printed.stderr


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "private.key"
    for mode, warned in ((0o644, True), (0o600, False)):
        path.touch()
        path.chmod(mode)
        with path.open("wb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "bridgectl", "genkey"], stdout=file, stderr=subprocess.PIPE, check=True
            )
        assert (b"others can read" in done.stderr) == warned
        assert len(path.read_bytes().strip()) == 44
