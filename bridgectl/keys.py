"""`bridgectl genkey` and `bridgectl pubkey`: the tunnel's keys, as `wg genkey` and `wg pubkey` make and read them.

A private key is 32 random bytes, clamped for Curve25519 (RFC 7748 5), in base64 on one line. It is printed and kept
nowhere: redirect it into a file that only you can read.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
import sys

import click

from bridgectl.errors import Failed

KEY_BYTES = 32


@click.command("genkey")
def genkey() -> None:
    """Print a new private key.

    umask 077; bridgectl genkey > private.key
    """
    key = bytearray(secrets.token_bytes(KEY_BYTES))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    mode = os.fstat(sys.stdout.fileno()).st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        click.echo("Warning: others can read this file; set the mode to 600, and the umask to 077 first.", err=True)
    click.echo(base64.b64encode(key))


@click.command("pubkey")
def pubkey() -> None:
    """Print the public key of the private key on standard input.

    bridgectl pubkey < private.key
    """
    from nacl.public import PrivateKey  # noqa: PLC0415 - slow to import, wanted here alone

    text = sys.stdin.buffer.read(256).strip()
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise Failed("this is no private key, give 32 bytes in base64, as `bridgectl genkey` prints them")
    click.echo(base64.b64encode(bytes(PrivateKey(key).public_key)))
