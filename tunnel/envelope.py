"""The envelope around a message that relays pass on: its layout, and the ids that it is addressed by.

| offset | bytes | content |
|---|---|---|
| 0 | 4 | 5, three zeros |
| 4 | 4 | receiver: the index of the session between two neighbours, little endian |
| 8 | 8 | counter of that session, little endian |
| 16 | 20 | sealed: hops left 0, three zeros 1, id of the source 4, id of the destination 12 |
| 36 | 16 | tag over the sealed address and the message |
| 52 | | a WireGuard message of type 1 to 4, as it is |

It belongs to the session of the two neighbours that it passes between, and takes its counter from the same row as data,
so that no nonce comes twice: ChaCha20-Poly1305 with the address as plaintext and the message as associated data, which
data messages do not have; neither can be made into the other. The next relay opens the address, which nobody else on
the way can read, and seals it anew; the message it passes on was sealed for the destination.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tunnel.messages import DATA_HEADER, ENVELOPE_BYTES, MessageKind, kind_of
from tunnel.primitives import TransportKey, digest, open_under, seal_under

ID_BYTES: Final = 8
HOPS: Final = 4
"""Relays that may pass an envelope on, one after the other."""

_ID_LABEL: Final = b"tapbridge id----"
_ADDRESS: Final = struct.Struct("<B3s8s8s")
_ZEROS: Final = bytes(3)
_ADDRESS_AT: Final = DATA_HEADER.size
_MESSAGE_AT: Final = ENVELOPE_BYTES


def node_id(name: str) -> bytes:
    """The id of a node, 8 bytes of a hash of its name. It leads to a node and proves nothing."""
    return digest(_ID_LABEL, name.encode())[:ID_BYTES]


class Envelope(NamedTuple):
    """A message on its way from one node to another. `hops`: relays that may still pass it on; `tos`: of the outer IP
    header that it leaves in."""

    hops: int
    source: bytes
    destination: bytes
    message: bytes
    tos: int = 0

    def sealed(self, key: TransportKey, receiver: int, counter: int) -> bytes:
        """The datagram for the next hop, under a session with it."""
        address = _ADDRESS.pack(self.hops, _ZEROS, self.source, self.destination)
        head = DATA_HEADER.pack(MessageKind.RELAYED, receiver, counter)
        return b"".join((head, seal_under(key, counter, address, self.message), self.message))


def named(datagram: bytes) -> tuple[int, int]:
    """The index and the counter on a datagram of kind RELAYED or DATA."""
    _, receiver, counter = DATA_HEADER.unpack_from(datagram)
    return receiver, counter


def address_in(datagram: bytes, key: TransportKey, counter: int) -> bytes | None:
    """The opened address of a datagram of kind RELAYED; None where its tag does not fit."""
    return open_under(key, counter, datagram[_ADDRESS_AT:_MESSAGE_AT], datagram[_MESSAGE_AT:])


def read(address: bytes, datagram: bytes) -> Envelope | None:
    """The envelope with this opened address; None where its content is impossible: the peer that sealed it is no
    node."""
    hops, zeros, source, destination = _ADDRESS.unpack(address)
    message = datagram[_MESSAGE_AT:]
    if zeros != _ZEROS or hops > HOPS or kind_of(message) in (None, MessageKind.RELAYED):
        return None
    return Envelope(hops, source, destination, message)
