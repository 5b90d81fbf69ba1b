"""Capture files, damaged or made up, through the readers and through a whole replay.

Must hold: `wire.pcap.read` gives records or raises `CaptureError`; no record is longer than the file; a classic
file that dpkt reads as well holds the same packets; a replay of it ends, raises nothing but `CaptureError`, tells lines
of JSON, and leaves captures that can be read.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import dpkt

from bridge.config.into_routes import routes_from
from bridge.replay.run import Input, run
from trials.fuzz.hostile import Failure, Target, raw, scratch_folder
from trials.fuzz.targets.frames import CONFIGURATION, MACS, configuration, packet
from wire import pcap, pcapng
from wire.ethernet import IPV4_TYPE
from wire.pcap import LINK_ETHERNET, LINK_RAW, CaptureError, Record
from wire.units import SECOND_NS

LONGEST_REPLAY = 64
"""Records of one input that are replayed: the readers are what is looked at here."""


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return scratch_folder()


def records_of(data: bytes) -> list[Record]:
    """The records of a file up to the place where it is damaged."""
    found: list[Record] = []
    try:
        for record in pcap.read(io.BytesIO(data), "file"):
            found.append(record)
            if len(record.data) > len(data):
                raise Failure("a record longer than the file")
    except CaptureError as error:
        if not str(error).startswith("file: ") or " at byte " not in str(error):
            raise Failure(f"an error that does not say where: {error}") from error
        return found
    others = None if data[:4] == pcapng.SECTION_MAGIC else _read_by_dpkt(data)
    if others is not None and [record.data for record in found] != others:
        raise Failure("dpkt reads other packets")
    return found


def _read_by_dpkt(data: bytes) -> list[bytes] | None:
    try:
        return [bytes(one) for _, one in dpkt.pcap.Reader(io.BytesIO(data))]
    except Exception:  # noqa: BLE001 - what it refuses, and how, says nothing about us
        return None


def episode(rng: random.Random, _most: int) -> int:
    """One file."""
    data = raw(rng)
    found = records_of(data)
    if not found or len(found) > LONGEST_REPLAY:
        return 1
    place = Path(_folder().name)
    path = place / "in.pcap"
    path.write_bytes(data)
    config = configuration(CONFIGURATION)
    port = "tap0" if found[0].link_type == LINK_ETHERNET else "vpn"
    told: list[str] = []
    with suppress(CaptureError):
        run(config, routes_from(config), [Input(port, path)], place / "out", linger_ns=SECOND_NS, tell=told.append)
    for line in told:
        json.loads(line)
    for out in (place / "out").iterdir():
        with out.open("rb") as file:
            sum(1 for _ in pcap.read(file, out.name))
    return 1


def _classic(order: str, magic: int, link: int, frames: list[bytes]) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return head + b"".join(
        struct.pack(order + "IIII", 1700000000 + at, at * 1000, len(frame), len(frame)) + frame
        for at, frame in enumerate(frames)
    )


def samples() -> list[bytes]:
    """Files of every kind that is read."""
    rng = random.Random(1)
    raws = [packet(rng)[:200] for _ in range(4)]
    frames = [MACS["tap0"] + IPV4_TYPE + one for one in raws]
    made = [
        _classic(order, magic, link, some)
        for order in "<>"
        for magic in (0xA1B2C3D4, 0xA1B23C4D)
        for link, some in ((LINK_ETHERNET, frames), (LINK_RAW, raws))
    ]
    for link, some in ((LINK_ETHERNET, frames), (LINK_RAW, raws)):
        file = io.BytesIO()
        writer = pcapng.PcapngWriter(file, [("tap0", link)], "fuzz")
        for at, one in enumerate(some):
            writer.write(0, 1700000000 * SECOND_NS + at, pcapng.INBOUND, one)
        made.append(file.getvalue())
        whole = file.getvalue()
        # A simple packet block and an obsolete one behind the others (draft-ietf-opsawg-pcapng 4.4 and A).
        simple = struct.pack("<III", 3, 16 + 20, 20) + bytes(20) + struct.pack("<I", 16 + 20)
        old = struct.pack("<IIHHIIII", 2, 32 + 20, 0, 0, 0, 5, 20, 20) + bytes(20) + struct.pack("<I", 32 + 20)
        made.append(whole + simple + old)
    return made


WORDS = [struct.pack(order + "I", value) for order in "<>" for value in (0, 1, 3, 6, 16, 28, 0xFFFFFFFF, 0x7FFFFFFC)]
TARGET = Target("pcap", episode, is_raw=True, samples=samples, words=[*WORDS, pcapng.SECTION_MAGIC])
