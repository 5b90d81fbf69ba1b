"""Words that people type and files that other programs wrote: what is read beside configuration and captures.

The first byte of an input says which reader gets the rest. Must hold: each gives its value or its own error.

- the words of `trace`: a whole packet with right checksums, or `ValueError`;
- the expression of `capture --filter`: compiled and matched, or `BadFilter`;
- a file of wg-quick: read and made a configuration of ours that can be loaded, or `ConfigError`;
- the file of stamps: stamps, and nothing at all where it is damaged;
- a prefix list: prefixes without host bits, and faults that name its lines;
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable
from functools import cache
from ipaddress import IPv4Interface
from pathlib import Path

from bridge.config.errors import ConfigError
from bridge.config.load import read
from bridge.config.wgquick import reading as wgquick
from bridge.config.wgquick.importing import imported
from bridge.state.stamps import StampFile
from bridgectl import words
from bridgectl.bpf import DLT_ETHERNET, DLT_RAW, BadFilter, Filter, NoLibrary
from route.lists import parse_prefixes
from trials.fuzz import rules
from trials.fuzz.hostile import Failure, Target, raw, scratch_folder
from trials.fuzz.targets.config import _KEY
from tunnel.tai64n import STAMP_BYTES

TextReader = Callable[[bytes], None]
_LAN = IPv4Interface("192.168.200.2/24")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return scratch_folder()


def trace_words(data: bytes) -> None:
    """As `bridgectl trace` has them from its arguments."""
    try:
        spoken = words.packet(data.decode("utf-8", "surrogateescape").split() or [""])
    except ValueError:
        return
    read_back = rules.headers(spoken)
    if read_back is None or not read_back.sum_is_right or rules.transport_is_right(read_back) is False:
        raise Failure(f"a packet with a wrong checksum: {spoken.hex()}")


def filter_expression(data: bytes) -> None:
    """libpcap is not ours, the way in and out is."""
    try:
        text = data[1:].decode("utf-8", "surrogateescape")
        made = Filter(text, DLT_ETHERNET if data[:1] < b"\x80" else DLT_RAW)
    except (BadFilter, NoLibrary):
        return
    made.matches(data)
    made.matches(b"")
    made.close()


def wg_quick(data: bytes) -> None:
    """From a foreign file to a configuration of ours that loads, or faults of the foreign file."""
    lines = data.count(b"\n") + 1
    try:
        source = wgquick.read(data, "wg0.conf")
        made = imported(source, "wg0.conf", _LAN if data[-1:] == b"#" else None)
    except ConfigError as error:
        _check_faults(error.errors, lines)
        return
    path = Path(_folder().name) / "gateway.toml"
    for name, (content, mode) in made.files.items():
        (path.parent / name).write_bytes(content)
        (path.parent / name).chmod(mode)
    _check_faults(made.notices, lines)
    try:
        read(made.text(), path, "run")
    except ConfigError as error:
        _check_faults(made.traced(error.errors, path), lines)


def _check_faults(faults: list[str], lines: int) -> None:
    for fault in faults:
        found = re.fullmatch(r"wg0\.conf:([0-9]+): .+", fault)
        if found is None or not 1 <= int(found[1]) <= lines:
            raise Failure(f"a fault that is of no line: {fault!r}")


def stamps(data: bytes) -> None:
    """The stamps of an earlier run, or of nobody."""
    path = Path(_folder().name) / "stamps.json"
    path.write_bytes(data)
    file = StampFile(path)
    found = file.read()
    for key, kept in found.items():
        if {len(kept.received), len(kept.sent)} != {STAMP_BYTES}:
            raise Failure(f"a stamp of another length for {key.hex()}")
    file.write(found)
    if file.read() != found:
        raise Failure("what was written is not what is read")


def prefixes(data: bytes) -> None:
    """A list of any text."""
    text = data.decode("utf-8", "replace")
    found = parse_prefixes(text, "list")
    count = text.count("\n") + 1
    for network, length, line in found.entries:
        if not 0 <= length <= 32 or network >> 32 or (length < 32 and network & (1 << (32 - length)) - 1):
            raise Failure(f"no prefix: {network:#x}/{length}")
        if not 1 <= line <= count:
            raise Failure(f"line {line} of {count}")
    for error in found.errors:
        if re.match(r"list:[0-9]+: .", error) is None:
            raise Failure(f"an error that is of no line: {error!r}")


READERS: tuple[TextReader, ...] = (trace_words, filter_expression, wg_quick, stamps, prefixes)


def episode(rng: random.Random, _most: int) -> int:
    """One text."""
    data = raw(rng)
    if data:
        READERS[data[0] % len(READERS)](data[1:])
    return 1


_WG = f"""[Interface]
PrivateKey = {_KEY}
Address = 10.0.0.2/24, fd00::2/64
ListenPort = 51820
DNS = 1.1.1.1
MTU = 1420
Table = off
PostUp = true
# office
[Peer]
PublicKey = {_KEY[:-2]}g=
PresharedKey = {_KEY}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = example.com:51820
PersistentKeepalive = 25
"""
_STAMP = "400000006553f100" + "00000000"
_SAMPLES = (
    (
        "udp 192.168.200.3:5000 8.8.8.8:53 size=10 ttl=3",
        "tcp 1.2.3.4:1 8.8.8.8:443 flags=SA. df=1",
        "icmp 1.2.3.4 5.6.7.8 id=7",
    ),
    ("\x01tcp port 80 and not host 1.2.3.4", "\x81udp[8:2] = 0x1234 or (icmp and ip[8] < 5)"),
    (_WG, _WG + "#", _WG.replace("0.0.0.0/0", "10.0.0.0/8")),
    (f'{{"{_KEY}": {{"received": "{_STAMP}", "sent": "{_STAMP}"}}}}', "{}", "[" * 100),
    ("# list\n203.0.113.0/24\n1.2.3.4 # host\r\n0.0.0.0/0\n", "203.0.113.1/24\n2001:db8::/32\n256.1.1.1\n1.2.3\n"),
)
_SAID = (
    "size ttl flags df id tcp udp icmp host net port and or not ip[0] 0x10 proto vlan 65536 99999999999 "
    "[Interface] [Peer] [ ] null"
)


def samples() -> list[bytes]:
    """One or several for each reader."""
    return [bytes([at]) + text.encode("latin-1") for at, texts in enumerate(_SAMPLES) for text in texts]


def _words() -> list[bytes]:
    said = re.findall(r"[\w./:+=-]+", _WG)
    return [word.encode() for word in dict.fromkeys([*said, *_SAID.split()])]


TARGET = Target("texts", episode, is_raw=True, samples=samples, words=_words())
