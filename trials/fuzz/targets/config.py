"""Configuration files as somebody might leave them: the TOML file with a prefix list and a route file.

An input is the text of `gateway.toml`, and behind form feeds those of `offload.txt` and `route/hk`. What must hold:
`load` gives a configuration or raises `ConfigError`, each fault of one line that names a file of the input and a line
that it has; a configuration that was taken makes a routing table and a gateway; and `replay` refuses nothing that `run`
takes.
"""

from __future__ import annotations

import base64
import random
import re
import tempfile
from functools import cache
from pathlib import Path

from bridge.config.errors import ConfigError
from bridge.config.into_routes import routes_from
from bridge.config.into_tunnel import peers_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import Config, load
from bridge.config.model import Purpose
from bridge.walk.gateway import Gateway
from trials.fuzz.hostile import Failure, Target, raw, scratch_folder
from trials.fuzz.targets.frames import WORLDS

_FAULT = re.compile(r"(?P<file>.+?):(?P<line>[0-9]+): .+", re.DOTALL)
_APART = b"\f"
_KEY = base64.b64encode(bytes(range(32))).decode()

WHOLE = f"""
[tap0]
address = "192.168.200.2/24"
mtu = 1500
bridge = "br0"
interface = "tap0"
netns = "lan"
[tap0.arp]
"192.168.200.9" = "02:aa:00:00:00:09"
[tap1]
kind = "tap"
address = "192.168.1.2/24"
gateway = "192.168.1.1"
[tun0]
address = "192.168.192.211/24"
default_route = false
[vpn]
address = "192.168.192.210"
mtu = 1420
node = "hk"
[offload]
prefixes = ["offload.txt"]
bypass = ["203.0.113.0/25"]
[tunnel]
private_key_file = "private.key"
listen_port = 51820
name = "home"
relay = true
routes = "route"
[peer.hk]
public_key = "{_KEY}"
preshared_key_file = "hk.psk"
endpoint = "203.0.113.10:51820"
persistent_keepalive = 25
allowed_ips = ["0.0.0.0/0"]
[peer.de]
public_key = "{_KEY[:-2]}g="
via = "hk"
allowed_ips = ["10.7.0.0/16"]
exit = false
[alias]
filtering = "endpoint-independent"
udp_timeout = 300
tcp_established_timeout = 7440
tcp_transitory_timeout = 240
icmp_timeout = 60
unsolicited_syn = "silent"
max_links = 4096
max_links_per_host = 512
exempt = ["192.0.2.0/24"]
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.3:80"
[icmp]
answer_on_tap1 = true
errors_per_second = 1000
mute = ["tap1"]
[control]
socket = "control.sock"
group = ""
metrics = "127.0.0.1:9586"
[hooks]
up = "./up.sh"
"""
LIST = "# prefixes\n203.0.113.0/24\n198.51.100.0/24 # another\n1.2.3.4\n"
ROUTES = "192.0.2.0/24\n"
_MORE = (
    "",
    "[]",
    "{}",
    "[[[[]]]]",
    '""',
    '"' + "a" * 300 + '"',
    "-1",
    "0",
    "1e999",
    "nan",
    "99999999999999999999",
    "1979-05-27T07:32:00Z",
    '"0.0.0.0/0"',
    '"255.255.255.255/32"',
    '"10.0.0.0/1"',
    '"10.0.0.1/31"',
    '"192.168.200.2/33"',
    '"::1/64"',
    '"[::1]:53"',
    '"a.example:1"',
    '"dhcp"',
    '"tun"',
    '"vpn"',
    '"../route"',
    '"."',
    '"\\u0000"',
    '"\\U0001F600"',
    '"""',
    "'''",
    "[[",
    "]]",
    "0x7FFFFFFF",
    "true",
    "65536",
)


def _words() -> list[bytes]:
    """Every word of the samples, and values that stand in nobody's file."""
    said = re.findall(r"\"[^\"\n]*\"|\[[^\]\n]*\]|[\w.]+", WHOLE)
    return [word.encode() for word in (*dict.fromkeys(said), *_MORE)]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the files stand, with keys and a hook that nobody changes; it goes with the process."""
    made = scratch_folder()
    place = Path(made.name)
    for name in ("private.key", "hk.psk"):
        (place / name).write_text(_KEY + "\n")
        (place / name).chmod(0o600)
    (place / "up.sh").write_text("#!/bin/sh\n")
    (place / "up.sh").chmod(0o755)
    (place / "route").mkdir()
    return made


def _loaded(path: Path, purpose: Purpose, lines: dict[str, int]) -> Config | None:
    try:
        return load(path, purpose)
    except ConfigError as error:
        if not error.errors:
            raise Failure("refused without a fault") from error
        for fault in error.errors:
            found = _FAULT.fullmatch(fault)
            if found is None or "\n" in fault:
                raise Failure(f"a fault that names no file and line: {fault!r}") from error
            if not 1 <= int(found["line"]) <= lines.get(found["file"], 1):
                raise Failure(f"a fault on a line that is not there: {fault!r}") from error
    return None


def episode(rng: random.Random, _most: int) -> int:
    """One configuration."""
    parts = raw(rng).split(_APART)
    place = Path(_folder().name)
    files = [place / "gateway.toml", place / "offload.txt", place / "route" / "hk"]
    lines = {}
    for file, content in zip(files, [*parts, b"", b""], strict=False):
        file.write_bytes(content)
        lines[str(file)] = content.count(b"\n") + 1
    demanding = _loaded(files[0], "run", lines)
    config = _loaded(files[0], "replay", lines)
    if demanding is not None:
        if config is None:
            raise Failure("replay refuses what run takes")
        peers_from(demanding).wipe()
    if config is not None:
        Gateway(gateway_settings(config), routes_from(config), random.Random(0)).start(0)
    return 1


def samples() -> list[bytes]:
    """Whole files, and those of the other targets."""
    whole = [WHOLE, *(world.configuration for world in WORLDS)]
    return [_APART.join(text.encode() for text in (one, LIST, ROUTES)) for one in whole]


TARGET = Target("config", episode, is_raw=True, samples=samples, words=_words())
