"""A key never comes back in a message, wherever in a configuration it was put; nor in a core dump."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config.errors import without_keys
from bridge.config.load import ConfigError, load
from tests.bridge.config.test_configuration_page import BLOCKS, PAGE

# One with slashes, of which a path swallows some, and one in hex.
PLAIN = base64.b64encode(bytes(range(7, 39))).decode()
SLASHES = "/UwcSPg38hW//9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="
HEX = bytes(range(7, 39)).hex()
SETTING = re.compile(r'(?m)^("?[\w.]+"?) += (.+?)(?= +#|$)')


def spoiled(secret: str) -> Iterator[str]:
    """The whole of docs/configuration.md, once for each of its settings with a key in its place, in ever other form."""
    text = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    assert len(BLOCKS) > 1
    for setting in SETTING.finditer(text):
        for value in (f'"{secret}"', f'["{secret}"]', f'{{ "{secret}" = 1 }}'):
            yield text[: setting.start(2)] + value + text[setting.end(2) :]
        yield text[: setting.start(1)] + f'"{secret}"' + text[setting.end(1) :]
        yield text[: setting.start()] + secret + text[setting.end() :]
    yield text.replace("[peer.hk]", f'[peer."{secret}"]')
    yield text.replace("[tap0.arp]", f'[tap0."{secret}"]')


@pytest.mark.parametrize("secret", [PLAIN, SLASHES, HEX], ids=["base64", "slashes", "hex"])
def test_no_message_repeats_a_key_that_stands_in_the_wrong_place(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "gateway.toml"
    refused = 0
    for text in spoiled(secret):
        path.write_text(text)
        try:
            told = load(path, "check").warnings
        except ConfigError as error:
            told = [*error.errors, str(error)]
            refused += 1
        shown = "".join(told).replace("/", "")
        for begin in range(0, 40, 8):
            assert secret.replace("/", "")[begin : begin + 12] not in shown, told
    assert refused > 100


@pytest.mark.parametrize("key", ["private_key_file", "preshared_key_file"])
def test_a_key_in_place_of_its_file_is_told_to_be_one(tmp_path: Path, key: str) -> None:
    (tmp_path / "private.key").write_text(PLAIN)
    (tmp_path / "private.key").chmod(0o600)
    table = "[tunnel]\n" if key.startswith("private") else '[tunnel]\nprivate_key_file = "private.key"\n[peer.hk]\n'
    path = tmp_path / "gateway.toml"
    path.write_text(f'[tun0]\naddress = "10.0.0.1/24"\n{table}{key} = "{PLAIN}"\n')
    with pytest.raises(ConfigError, match=f"{key}: this is a key itself, put it into a file with mode 0600"):
        load(path, "check")


def test_a_prefix_list_with_a_key_in_it_is_refused_without_repeating_it(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(PLAIN)
    path = tmp_path / "gateway.toml"
    path.write_text('[offload]\nprefixes = ["list"]\n')
    with pytest.raises(ConfigError) as caught:
        load(path, "replay")
    assert PLAIN[:12] not in str(caught.value)


@pytest.mark.parametrize("text", ["/etc/tapbridge/private.key: no such file", "2001:db8::1", "a" * 39, "x" * 50])
def test_what_is_no_key_is_left_as_it_is(text: str) -> None:
    assert without_keys(text) == text


CRASH = """
import ctypes, os, resource, signal
from bridge.privsep.privileges import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
forbid_core_dumps()
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGABRT)
status = os.waitpid(child, 0)[1]
print(dumpable, resource.getrlimit(resource.RLIMIT_CORE), os.WTERMSIG(status), os.WCOREDUMP(status), flush=True)
print(os.readlink("/proc/self/fd/1") != "", os.readlink("/proc/self/ns/net") != "")
os.kill(os.getpid(), signal.SIGABRT)
"""


def test_a_crash_leaves_no_core_nor_does_that_of_a_child(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CRASH],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    assert done.stdout.splitlines() == [f"0 (0, 0) {int(signal.SIGABRT)} False", "True True"]
    assert list(tmp_path.iterdir()) == []
