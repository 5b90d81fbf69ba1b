"""pcapng (draft-ietf-opsawg-pcapng): reading for replay, writing for `bridgectl capture`.

The bodies of the blocks are taken apart and put together by the python-pcapng library. The framing around them
(section 3.1: type, length, body, length again) is checked here, because the library trusts a block length before it has
read the bytes, and takes a block that is too short for the end of the file. Its typed options are not used for reading:
they refuse well-formed files (a repeated unknown option, an IPv6 address), and they turn times into floats.

Sections 4.1 to 4.4 and 4.6 of the draft: section header, interface description (`_interface`), simple, enhanced and
obsolete packet blocks (`_packet`); every other block is skipped.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from pcapng import blocks
from pcapng.exceptions import PcapngException
from pcapng.structs import EPBFlags, read_options, struct_decode
from pcapng.writer import FileWriter

from wire.capture import LATEST_NS, SNAP_BYTES, CaptureError, Record, Source

SECTION_MAGIC = b"\n\r\r\n"
_BYTE_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_FRAME_BYTES = 12  # type, length, and the length again behind the body
_SECTION_BODY_BYTES = 16
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14
_OPTION_PROGRAM, _OPTION_NAME, _OPTION_COMMENT, _OPTION_FLAGS = 4, 2, 1, 2
PROGRAM = "bridgectl"
"""The beginning of the author's name in captures of ours, whose options say more of a record."""
_SUPER_FRAME = "super-frame, {} bytes a segment"
_SEGMENT_BYTES = re.compile(r"super-frame, (\d{1,5}) bytes a segment")
_SECOND_NS = 1_000_000_000

# The fixed fields of each block, as the library describes them; options are read by `_options`.
_INTERFACE_FIELDS = blocks.InterfaceDescription.schema[:3]
_PACKET_FIELDS = {
    _ENHANCED_PACKET: blocks.EnhancedPacket.schema[:6],
    _OBSOLETE_PACKET: blocks.ObsoletePacket.schema[:7],
}


class _InterfaceBlock(NamedTuple):
    """An interface description block. A tick is `numerator / denominator` nanoseconds."""

    link_type: int
    snap_bytes: int
    numerator: int
    denominator: int
    offset_ns: int
    name: str = ""


def read(source: Source) -> Iterator[Record]:
    """The packets of a file whose first four bytes, `SECTION_MAGIC`, have been read already.

    A simple packet block carries no time: it gets the time of the packet before it, 0 at the start. Raises
    `CaptureError` where a block is damaged or cut.
    """
    kind: bytes = SECTION_MAGIC
    start = 0
    number = 1
    order = "<"
    is_ours = False
    interfaces: list[_InterfaceBlock] = []
    latest_ns = 0
    while kind:
        what = f"block {number}"
        if kind == SECTION_MAGIC:
            order, body = _section(source, what, start)
            interfaces = []
            is_ours = _is_ours(body, order)
        else:
            if len(kind) < 4:
                raise source.cut(what, start, _FRAME_BYTES)
            body = _body(source, what, start, order)
            code = struct.unpack(order + "I", kind)[0]
            try:
                if code == _INTERFACE:
                    interfaces.append(_interface(body, order))
                elif code == _SIMPLE_PACKET:
                    yield _simple_packet(body, order, interfaces, latest_ns)
                elif code in _PACKET_FIELDS:
                    record = _packet(body, order, code, interfaces, is_ours=is_ours)
                    latest_ns = record.timestamp_ns
                    yield record
            except CaptureError as error:
                raise source.error(what, start, str(error)) from error
            except PcapngException as error:
                raise source.error(what, start, f"its body ends too early ({error})") from error
        start = source.offset
        number += 1
        kind = source.read(4)


def _section(source: Source, what: str, start: int) -> tuple[str, bytes]:
    """The byte order of a section and the rest of its header's body."""
    head = source.read(8)
    if len(head) < 8:
        raise source.cut(what, start, _FRAME_BYTES + _SECTION_BODY_BYTES)
    order = _BYTE_ORDERS.get(head[4:])
    if order is None:
        raise source.error(what, start, f"the byte-order magic is {head[4:].hex()}")
    body = _framed(source, what, start, order, length=head[:4], taken=4)
    if len(body) < _SECTION_BODY_BYTES - 4:
        raise source.error(what, start, "a section header of fewer than 28 bytes")
    major, minor = struct.unpack_from(order + "HH", body)
    if major != 1:
        raise source.error(what, start, f"pcapng version {major}.{minor}, 1.0 is known")
    return order, body


def _body(source: Source, what: str, start: int, order: str) -> bytes:
    length = source.read(4)
    if len(length) < 4:
        raise source.cut(what, start, _FRAME_BYTES)
    return _framed(source, what, start, order, length=length, taken=0)


def _framed(source: Source, what: str, start: int, order: str, *, length: bytes, taken: int) -> bytes:
    """The rest of a block's body, `taken` bytes of which have been read, once both lengths agree."""
    total: int = struct.unpack(order + "I", length)[0]
    if total < _FRAME_BYTES + taken or total % 4:
        raise source.error(what, start, f"a block length of {total}")
    wanted = total - _FRAME_BYTES - taken
    body = source.read(wanted)
    trailer = source.read(4)
    if len(trailer) < 4:
        raise source.cut(what, start, total)
    if trailer != length:
        raise source.error(what, start, f"its two lengths differ: {total} and {struct.unpack(order + 'I', trailer)[0]}")
    return body


def _interface(body: bytes, order: str) -> _InterfaceBlock:
    stream = io.BytesIO(body)
    fields = struct_decode(_INTERFACE_FIELDS, stream, order)
    options = dict(read_options(stream, order))
    resolution = options.get(_OPTION_RESOLUTION, b"\x06")
    offset = options.get(_OPTION_OFFSET, bytes(8))
    if len(resolution) != 1 or len(offset) != 8:
        raise CaptureError("if_tsresol takes one byte, if_tsoffset eight")
    exponent = resolution[0] & 0x7F
    ticks_per_second = (2 if resolution[0] & 0x80 else 10) ** exponent
    offset_s: int = struct.unpack(order + "q", offset)[0]
    name = options.get(_OPTION_NAME, b"").decode(errors="replace")
    return _InterfaceBlock(
        fields["link_type"], fields["snaplen"], _SECOND_NS, ticks_per_second, offset_s * _SECOND_NS, name
    )


def _simple_packet(body: bytes, order: str, interfaces: list[_InterfaceBlock], now_ns: int) -> Record:
    interface = _known(interfaces, 0)
    if len(body) < 4:
        raise CaptureError("a simple packet block without a length")
    captured: int = struct.unpack_from(order + "I", body)[0]
    if interface.snap_bytes:
        captured = min(captured, interface.snap_bytes)
    if captured > len(body) - 4:
        raise CaptureError(f"a packet of {captured} bytes in a block with {len(body) - 4}")
    return Record(now_ns, interface.link_type, body[4 : 4 + captured])


def _is_ours(body: bytes, order: str) -> bool:
    """True where `bridgectl capture` wrote the section, whose header `body` is from its version on."""
    try:
        options = dict(read_options(io.BytesIO(body[_SECTION_BODY_BYTES - 4 :]), order))
    except PcapngException:
        return False
    program: bytes = options.get(_OPTION_PROGRAM, b"")
    return program.startswith(PROGRAM.encode() + b" ")


def _packet(body: bytes, order: str, code: int, interfaces: list[_InterfaceBlock], *, is_ours: bool = False) -> Record:
    stream = io.BytesIO(body)
    fields = struct_decode(_PACKET_FIELDS[code], stream, order)
    interface = _known(interfaces, fields["interface_id"])
    ticks = fields["timestamp_high"] << 32 | fields["timestamp_low"]
    timestamp_ns = ticks * interface.numerator // interface.denominator + interface.offset_ns
    if not 0 <= timestamp_ns <= LATEST_NS:
        raise CaptureError(f"a time of {timestamp_ns // _SECOND_NS} seconds since 1970")
    record = Record(timestamp_ns, interface.link_type, fields["packet_data"])
    return record if not is_ours else _told(record, interface.name, list(read_options(stream, order)), order)


def _told(record: Record, name: str, options: list[tuple[int, bytes]], order: str) -> Record:
    """A record of ours with all that its options say."""
    is_out, segment_bytes = False, 0
    for code, value in options:
        if code == _OPTION_FLAGS and len(value) == 4:
            is_out = struct.unpack(order + "I", value)[0] & 3 == OUTBOUND
        elif code == _OPTION_COMMENT:
            found = _SEGMENT_BYTES.search(value.decode(errors="replace"))
            segment_bytes = int(found[1]) if found is not None else segment_bytes
    return record._replace(interface=name, is_out=is_out, segment_bytes=segment_bytes)


def _known(interfaces: list[_InterfaceBlock], index: int) -> _InterfaceBlock:
    if index >= len(interfaces):
        raise CaptureError(f"a packet of interface {index}, of {len(interfaces)} described so far")
    return interfaces[index]


INBOUND, OUTBOUND = 1, 2
_DIRECTIONS = {direction: EPBFlags(direction) for direction in (INBOUND, OUTBOUND)}


class PcapngWriter:
    """Writes pcapng with nanoseconds: one section, an interface description for each port, enhanced packet blocks
    with their direction (`epb_flags`). Each block is one write, so that an interrupt leaves no half of it behind. The
    caller opens, flushes and closes the binary file."""

    def __init__(self, file: BinaryIO, interfaces: list[tuple[str, int]], program: str) -> None:
        """`interfaces`: (name, link type), their order is their number. `program`: shown as the file's author."""
        section = blocks.SectionHeader(endianness="<", options={"shb_userappl": program})
        self._section: Any = section
        with warnings.catch_warnings():
            # the library describes if_tsresol by no type and warns of that on each use
            warnings.simplefilter("ignore", DeprecationWarning)
            for name, link_type in interfaces:
                section.new_member(
                    blocks.InterfaceDescription,
                    link_type=link_type,
                    snaplen=SNAP_BYTES,
                    options={"if_name": name, "if_tsresol": b"\x09"},
                )
            self._block = io.BytesIO()
            self._writer: Any = FileWriter(self._block, section)
        self._file = file
        self._put()

    def write(self, interface: int, timestamp_ns: int, direction: int, data: bytes, segment_bytes: int = 0) -> None:
        """One packet, nothing cut off; `direction` is `INBOUND` or `OUTBOUND`, seen from the gateway. `segment_bytes`:
        of a super-frame, which a comment tells."""
        options: dict[str, Any] = {"epb_flags": _DIRECTIONS[direction]}
        if segment_bytes:
            options["opt_comment"] = _SUPER_FRAME.format(segment_bytes)
        block = self._section.new_member(
            blocks.EnhancedPacket,
            interface_id=interface,
            timestamp_high=timestamp_ns >> 32,
            timestamp_low=timestamp_ns & 0xFFFFFFFF,
            packet_len=len(data),
            packet_data=data,
            options=options,
        )
        self._writer.write_block(block)
        self._put()

    def _put(self) -> None:
        self._file.write(self._block.getvalue())
        self._block.seek(0)
        self._block.truncate()
