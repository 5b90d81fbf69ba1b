"""`bridgectl trace`: one packet's walk through the real code."""

from __future__ import annotations

from bridge.control.answers.question import Arguments, Subject, document, question
from bridge.control.protocol import FAILED, USAGE, Document, QuestionRefused
from bridge.replay.run import Misuse, port_name
from bridge.walk.gateway import Gateway
from wire.captured import as_received
from wire.ethernet import IPV4_TYPE
from wire.gso import GsoHeader
from wire.pcap import LINK_ETHERNET, LINK_RAW, LINKS_RAW

_LONGEST_PACKET_BYTES = 0xFFFF
_SENDER = bytes.fromhex("02feed000001")
"""The sender's MAC address of a packet that comes without an Ethernet header."""


@question("trace", in_fork=True)  # the packet's walk changes tables and counters: a snapshot is thrown away with them
def walk(subject: Subject, arguments: Arguments, now: int) -> Document:
    """Walk one packet that comes in by `port`: `frame` (hex, as a capture of `link_type` holds it; without a link type
    as the port carries it) or `packet` (hex, from the IP header on). A frame of a capture may be a super-frame, of
    `segment_bytes` a segment where the capture says so.

    The walk changes the gateway, so the caller gives a copy, or calls this in a fork.
    """
    gateway = subject.gateway
    port = _port(gateway, arguments)
    data = _frame(gateway, port, arguments)
    from bridge.replay.summary import summary  # noqa: PLC0415 - dpkt, for the child that answers this, not for the daemon

    frame, gso = _as_received(gateway, port, data, arguments)
    told = gateway.trace(port, frame, now, gso)
    return document(
        steps=[{"room": room, "says": says} for room, says in told.steps],
        verdict=told.verdict,
        out=[
            {
                "port": sent.port,
                "summary": summary(bytes(sent.frame), ethernet=_is_ethernet(gateway, sent.port)),
                "hex": bytes(sent.frame).hex(),
            }
            for sent in told.out
        ],
        drop=told.drop.value if told.drop is not None else None,
    )


def _as_received(
    gateway: Gateway, port: str, data: bytes, arguments: Arguments
) -> tuple[bytes | bytearray, GsoHeader | None]:
    """A frame of a capture with the virtio header that it lost there; any other frame as it is."""
    if "link_type" not in arguments:
        return data, None
    told = arguments.get("segment_bytes")
    return as_received(
        data,
        gateway.ports.named(port).interface.mtu_bytes,
        is_ethernet=_is_ethernet(gateway, port),
        segment_bytes=told if isinstance(told, int) and 0 <= told <= _LONGEST_PACKET_BYTES else 0,
    )


def _frame(gateway: Gateway, port: str, arguments: Arguments) -> bytes:
    """The bytes that come in by the port, with an Ethernet header where the port has one."""
    ethernet = _is_ethernet(gateway, port)
    data = _bytes(arguments["packet"] if "packet" in arguments else arguments.get("frame"))
    link_type = _link_type(arguments)
    if link_type is None:
        link_type = LINK_ETHERNET if ethernet else LINK_RAW
    if not ethernet and link_type not in LINKS_RAW:
        raise QuestionRefused(FAILED, f"{port} carries raw IP (link types 101, 228 and 12), the frame has {link_type}")
    if ethernet and ("packet" in arguments or link_type in LINKS_RAW):
        return gateway.interfaces[port].mac + _SENDER + IPV4_TYPE + data
    if ethernet and link_type != LINK_ETHERNET:
        raise QuestionRefused(FAILED, f"{port} carries Ethernet (link type 1), the frame has {link_type}")
    return data


def _port(gateway: Gateway, arguments: Arguments) -> str:
    """The port that the packet comes in by. Without a name it is the first port that there is, or the first of raw IP
    where a capture holds raw IP."""
    name = arguments.get("port")
    if name is None:
        ports = list(gateway.interfaces)
        if not ports:
            says = "the configuration has no port, add [tap0] (a LAN gateway) or [tun0] (an exit node)"
            raise QuestionRefused(FAILED, says)
        raw = [port for port in ports if not _is_ethernet(gateway, port)]
        name = raw[0] if raw and _link_type(arguments) in LINKS_RAW else ports[0]
    try:
        return port_name(gateway.settings, gateway.routes, str(name))
    except Misuse as error:
        raise QuestionRefused(USAGE, str(error)) from error


def _is_ethernet(gateway: Gateway, port: str) -> bool:
    return gateway.ports.named(port).interface.framing == "ethernet"


def _link_type(arguments: Arguments) -> int | None:
    """The link type that was given, if one was."""
    link_type = arguments.get("link_type")
    if link_type is not None and not isinstance(link_type, int):
        raise QuestionRefused(USAGE, "the link type must be a number, as a capture file has it")
    return link_type


def _bytes(text: object) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError as error:
        raise QuestionRefused(USAGE, "the packet must be hexadecimal digits, two for each byte") from error
