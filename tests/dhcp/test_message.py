"""DHCP messages: read strictly, written for the wire; scapy and captures of others are the judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from dhcp import message
from dhcp.message import Kind, Message
from wire import ipv4, pcap
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.pcap import CaptureError
from wire.units import address_int

MAC = bytes.fromhex("020000000102")


def made(options: list[object], **fixed: object) -> bytes:
    return bytes(BOOTP(**({"op": 2, "chaddr": MAC} | fixed)) / DHCP(options=options))


def test_d8_a_reply_as_scapy_writes_it_is_read_field_by_field() -> None:
    read = message.parse(
        made(
            [("message-type", "offer"), ("server_id", "192.168.1.1"), ("error_message", b"no\x07"), "end"],
            xid=0x01020304,
            secs=7,
            flags="B",
            ciaddr="1.2.3.4",
            yiaddr="192.168.1.50",
            siaddr="5.6.7.8",
            giaddr="9.9.9.9",
        )
    )
    assert isinstance(read, Message)
    assert (read.op, read.xid, read.secs, read.flags, read.kind) == (2, 0x01020304, 7, 0x8000, Kind.OFFER)
    assert (read.ciaddr, read.yiaddr) == (address_int("1.2.3.4"), address_int("192.168.1.50"))
    assert (read.siaddr, read.giaddr) == (address_int("5.6.7.8"), address_int("9.9.9.9"))
    assert (read.chaddr, read.server, read.text) == (MAC, address_int("192.168.1.1"), "no?")


OFFER = ("message-type", "offer")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        made([OFFER, "end"])[:239],
        made([OFFER, "end"]).replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
        made([OFFER, "end"], op=3),
        made([OFFER, "end"], htype=6),
        made([OFFER, "end"], hlen=16),
        made([("lease_time", 60), "end"]),  # BOOTP
        made(["end"]) + b"\x35\x01\x02",  # the type behind the end
        made([OFFER]) + b"\x33\x04\x00",  # an option that is cut off
        made([OFFER]) + b"\x35\x01\x02\xff",  # two types are one of two bytes
        made([OFFER]) + b"\x34\x01\x04\xff",  # an overload that is none
        made([OFFER]) + b"\x34\x02\x01\x01\xff",
        made([OFFER]) + b"\x35\x00\xff",
        made([OFFER], file=b"\x33\x7f") + b"\x34\x01\x01\xff",  # cut off in an overloaded field
    ],
)
def test_d8_malformed_messages_are_drops(payload: bytes) -> None:
    if payload.endswith(b"\x35\x00\xff"):  # an empty repetition adds nothing
        assert isinstance(message.parse(payload), Message)
    else:
        assert message.parse(payload) is Drop.DHCP_MALFORMED


@pytest.mark.parametrize(
    ("overload", "seen"), [(0, {}), (1, {15: b"file"}), (2, {15: b"name"}), (3, {15: b"filename"})]
)
def test_d8_overloaded_fields_hold_options_file_before_sname(overload: int, seen: dict[int, bytes]) -> None:
    areas = {"file": b"\x0f\x04file\xff", "sname": b"\x0f\x04name\xff"}
    read = message.parse(made([OFFER], **areas) + bytes((52, 1, overload, 255)))
    assert isinstance(read, Message)
    assert {code: value for code, value in read.options.items() if code != 53} == seen


def test_d8_a_type_in_an_overloaded_field_counts() -> None:
    read = message.parse(made([], file=b"\x35\x01\x05\xff") + b"\x34\x01\x01\xff")
    assert isinstance(read, Message)
    assert read.kind == Kind.ACK


def test_d2_a_written_message_is_padded_to_300_bytes_and_scapy_reads_it() -> None:
    payload = message.write(Kind.DISCOVER, 0xCAFE0001, MAC, [(12, b"gw")], secs=100_000)
    assert len(payload) == 300
    assert payload[236:240] == b"\x63\x82\x53\x63"
    read = BOOTP(payload)
    assert (read.op, read.htype, read.hlen, read.hops, read.xid) == (1, 1, 6, 0, 0xCAFE0001)
    assert (read.secs, int(read.flags), bytes(read.chaddr[:6])) == (0xFFFF, 0, MAC)
    assert read[DHCP].options[:3] == [("message-type", 1), ("hostname", b"gw"), "end"]


@given(
    st.lists(st.tuples(st.sampled_from([12, 60, 61, 77, 200]), st.binary(max_size=600)), unique_by=lambda one: one[0])
)
def test_d2_what_is_written_is_read_back(options: list[tuple[int, bytes]]) -> None:
    read = message.parse(message.write(Kind.REQUEST, 1, MAC, options, ciaddr=5))
    assert isinstance(read, Message)
    assert (read.kind, read.ciaddr, dict(read.options)) == (Kind.REQUEST, 5, {**dict(options), 53: b"\x03"})


@given(st.binary(max_size=700))
def test_d8_any_bytes_are_a_message_or_a_drop(payload: bytes) -> None:
    assert message.parse(payload) is Drop.DHCP_MALFORMED


@given(st.binary(max_size=300), st.integers(0, 3))
def test_d8_any_options_are_a_message_or_a_drop(area: bytes, overload: int) -> None:
    read = message.parse(made([OFFER], file=area[:128], sname=area[-64:]) + bytes((52, 1, overload)) + area)
    assert read is Drop.DHCP_MALFORMED or isinstance(read, Message)


def dhcp_payloads(path: Path) -> list[bytes]:
    found: list[bytes] = []
    with path.open("rb") as file:
        try:
            for record in pcap.read(file, path.name):
                packet = ipv4.parse(record.data, 14)
                if not isinstance(packet, Packet) or ipv4.read_transport(packet) or packet.protocol != ipv4.UDP:
                    continue
                if {packet.source_port, packet.destination_port} <= {67, 68}:
                    found.append(bytes(packet.data[packet.header_bytes + 8 :]))
        except CaptureError:
            pass
    return found


def scapy_options(payload: bytes) -> dict[int, bytes]:
    """Type and server of the options area, by scapy."""
    read = BOOTP(payload)
    if DHCP not in read or read.htype != 1 or read.hlen != 6:
        return {}
    return dict(one[:2] for one in read[DHCP].options if isinstance(one, tuple))


@pytest.mark.parametrize("kind", ["real", "malformed"])
def test_d8_captured_messages_are_read_as_scapy_reads_them(shared: Path, kind: str) -> None:
    paths = [path for path in sorted((shared / "pcaps" / kind).glob("*.pcap*")) if "dhcp" in path.name]
    if not paths:
        pytest.skip(f"no captures of DHCP in {shared.name}/pcaps/{kind}")
    messages = 0
    for path in paths:
        for payload in dhcp_payloads(path):
            read = message.parse(payload)
            theirs = scapy_options(payload)
            if isinstance(read, Drop):
                continue
            messages += 1
            assert theirs["message-type"] == read.kind, path.name
            assert "server_id" not in theirs or address_int(theirs["server_id"]) == read.server, path.name
    assert messages >= (10 if kind == "real" else 1)
