"""`bridgectl import` and `bridgectl export`: files on disk, their modes, and the way there and back."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config.load import load
from bridge.config.wgquick.reading import WgQuick, read
from lab.private import Impossible
from tests.bridgectl.conftest import Run
from tests.laboratory import needing_the_kernel
from tunnel.primitives import public_key

PRIVATE = base64.b64encode(bytes(range(32))).decode()
PSK = base64.b64encode(bytes(range(50, 82))).decode()
KEYS = [base64.b64encode(public_key(bytes([number]) * 32)).decode() for number in range(1, 4)]
CLIENT = f"""
[Interface]
PrivateKey = {PRIVATE}
Address = 10.7.0.2/32
ListenPort = 51999
MTU = 1380
[Peer]
# hk
PublicKey = {KEYS[0]}
PresharedKey = {PSK}
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example:51820
PersistentKeepalive = 25
[Peer]
# sg
PublicKey = {KEYS[1]}
AllowedIPs = 10.9.0.0/16, 192.0.2.7/32
"""
SERVER = f"""
[Interface]
PrivateKey = {PRIVATE}
Address = 10.7.0.1/24
ListenPort = 51820
[Peer]
# alice
PublicKey = {KEYS[0]}
AllowedIPs = 10.7.0.2/32
[Peer]
# bob
PublicKey = {KEYS[1]}
PresharedKey = {PSK}
AllowedIPs = 10.7.0.3/32, 10.66.0.0/16
"""
SPLIT = f"""
[Interface]
PrivateKey = {PRIVATE}
Address = 10.7.0.2/24
ListenPort = 1
[Peer]
# office
PublicKey = {KEYS[2]}
AllowedIPs = 10.7.0.0/24, 10.66.0.0/16
Endpoint = 203.0.113.9:51820
"""
OFF = CLIENT.replace("MTU = 1380", "Table = off")


@pytest.fixture
def wg0(folder: Path) -> Path:
    path = folder / "wg0.conf"
    path.write_text(CLIENT)
    path.chmod(0o600)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def facts(found: WgQuick) -> object:
    return (
        found.private_key,
        [address for _, address in found.addresses],
        (found.listen_port, found.mtu, found.table),
        found.peers,
    )


def test_a_configuration_and_its_key_files_are_made_and_check_takes_them(run: Run, wg0: Path, folder: Path) -> None:
    old = os.umask(0)
    try:
        said = run("import", "wg0.conf", "-c", "new/gateway.toml")
    finally:
        os.umask(old)
    assert {path.name: mode(path) for path in (folder / "new").iterdir()} == {
        "gateway.toml": 0o644,
        "private.key": 0o600,
        "hk.psk": 0o600,
    }
    assert (folder / "new" / "private.key").read_text() == f"{PRIVATE}\n"
    assert (folder / "new" / "hk.psk").read_text() == f"{PSK}\n"
    for secret in (PRIVATE, PSK):
        assert secret not in said.output
        assert secret not in (folder / "new" / "gateway.toml").read_text()
    run("check", "-c", "new/gateway.toml")


@pytest.mark.parametrize("text", [CLIENT, SERVER, SPLIT, OFF], ids=["client", "server", "split", "table off"])
def test_there_and_back_it_says_the_same(run: Run, wg0: Path, folder: Path, text: str) -> None:
    wg0.write_text(text)
    run("import", "wg0.conf", "-c", "new/gateway.toml")
    said = run("export", "-c", "new/gateway.toml", "-o", "back.conf")
    assert mode(folder / "back.conf") == 0o600
    assert PRIVATE not in said.output
    back = (folder / "back.conf").read_bytes()
    assert facts(read(back, "back")) == facts(read(text.encode(), "wg0"))
    run("import", "back.conf", "-c", "again/gateway.toml")
    first, second = ((folder / name / "gateway.toml").read_text().split("\n", 1)[1] for name in ("new", "again"))
    assert first == second


def test_private_ranges_that_were_added_are_taken_out_again(run: Run, wg0: Path, folder: Path) -> None:
    for first, second in (("8.0.0.0/5", "10.0.0.0/7"), ("0.0.0.0/0", "10.0.0.0/8"), ("128.0.0.0/1, 0.0.0.0/1", "")):
        wg0.write_text(CLIENT.replace("10.9.0.0/16, 192.0.2.7/32", second).replace("0.0.0.0/0", first))
        run("import", "wg0.conf", "-c", "new/gateway.toml", "--force")
        run("export", "-c", "new/gateway.toml", "-o", "back.conf", "--force")
        text = (folder / "back.conf").read_bytes()
        assert [peer.allowed_ips for peer in read(text, "x").peers] == [
            peer.allowed_ips for peer in read(wg0.read_bytes(), "x").peers
        ]


def test_a_name_of_a_file_stays_on_its_line(run: Run, wg0: Path, folder: Path) -> None:
    strange = wg0.rename(folder / "wg0\n[tun0].conf")
    run("import", strange.name, "-c", "a\n[tun0].toml")
    run("export", "-c", "a\n[tun0].toml", "-o", "back.conf")
    assert facts(read((folder / "back.conf").read_bytes(), "x")) == facts(read(CLIENT.encode(), "x"))


def test_a_lan_gateway_goes_back_as_the_host_that_its_lan_was(run: Run, wg0: Path, folder: Path) -> None:
    run("import", "wg0.conf", "-c", "new/gateway.toml", "--lan", "192.168.200.2/24")
    assert str(load(folder / "new" / "gateway.toml", "check").vpn.address) == "10.7.0.2"  # type: ignore[union-attr]
    said = run("export", "-c", "new/gateway.toml", "-o", "-")
    assert "[tap0] has no counterpart" in said.stderr
    assert "Address = 10.7.0.2/32\n" in said.stdout
    assert "Table = off\n" in said.stdout


def test_nothing_is_replaced_without_force(run: Run, wg0: Path, folder: Path) -> None:
    before = (folder / "gateway.toml").read_text()
    said = run("import", "wg0.conf", "-c", "gateway.toml", code=1)
    assert "gateway.toml" in said.stderr
    assert (folder / "gateway.toml").read_text() == before
    assert not (folder / "private.key").exists()
    (folder / "private.key").write_text("mine")
    (folder / "route" / "sg").unlink()
    assert "private.key" in run("import", "wg0.conf", "-c", "other.toml", code=1).stderr
    assert (folder / "private.key").read_text() == "mine"
    run("import", "wg0.conf", "-c", "gateway.toml", "--force")
    assert (folder / "private.key").read_text() == f"{PRIVATE}\n"
    assert mode(folder / "private.key") == 0o600
    run("export", "-c", "gateway.toml", "-o", "wg0.conf", code=1)
    assert wg0.read_text() == CLIENT
    wg0.chmod(0o644)
    run("export", "-c", "gateway.toml", "-o", "wg0.conf", "--force")
    assert mode(wg0) == 0o600


def test_a_key_file_is_not_written_through_a_link_that_waits_for_it(run: Run, wg0: Path, folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "private.key").symlink_to(folder / "elsewhere")
    run("import", "wg0.conf", "-c", "new/gateway.toml", code=1)
    run("import", "wg0.conf", "-c", "new/gateway.toml", "--force")
    assert not (folder / "elsewhere").exists()
    assert not (folder / "new" / "private.key").is_symlink()


def test_what_check_would_refuse_is_not_written_and_named_by_the_line_it_came_from(
    run: Run, wg0: Path, folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    said = run("import", "wg0.conf", "-c", "new/gateway.toml", "--lan", "10.7.0.1/24", code=4)
    assert said.stderr.startswith("wg0.conf:4: vpn.address: ")
    wg0.write_text(SERVER.replace("10.7.0.1/24", "10.7.0.0/24"))
    said = run("import", "wg0.conf", "-c", "new/gateway.toml", code=4)
    assert said.stderr.startswith("wg0.conf:4: tun0.address: ")
    wg0.write_text(CLIENT)
    (folder / "route" / "de").write_text("192.0.2.0/24\n")
    assert "route/de:1: there is no peer" in run("import", "wg0.conf", "-c", "other.toml", code=4).stderr
    (folder / "route" / "de").unlink()
    wg0.write_text("[Interface]\nPrivateKey = x\n[Peer]\n")
    assert len(run("import", "wg0.conf", "-c", "new/gateway.toml", code=4).stderr.splitlines()) == 2
    assert sorted(folder.rglob("*")) == before


def test_a_file_that_others_may_read_and_standard_input(run: Run, wg0: Path, folder: Path) -> None:
    wg0.chmod(0o644)
    assert "wg0.conf:1: others may read the keys" in run("import", "wg0.conf", "-c", "a/gateway.toml").stderr
    done = subprocess.run(
        [sys.executable, "-m", "bridgectl", "import", "-", "-c", "b/gateway.toml"],
        input=CLIENT + "What = 1\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stderr.partition(" is ")[0]) == (4, 'stdin:18: "What"')


def test_a_file_that_cannot_be_read_or_is_too_long_is_a_fault(run: Run, folder: Path) -> None:
    assert run("import", "missing.conf", "-c", "n.toml", code=4).stderr.startswith("missing.conf:1: no such file")
    (folder / "long.conf").write_bytes(b"#" * 2_000_000)
    run("import", "long.conf", "-c", "n.toml", code=4)
    run("import", "missing.conf", "--lan", "192.168.1.1", code=2)


def test_an_export_needs_a_place_a_tunnel_and_peers_that_are_there(run: Run, wg0: Path, folder: Path) -> None:
    run("import", "wg0.conf", "-c", "new/gateway.toml")
    run("export", "-c", "new/gateway.toml", code=2)
    run("export", "-c", "new/gateway.toml", "-o", "-", "--peer", "xx", code=2)
    run("export", "-c", "new/gateway.toml", "-o", "-", "--peer", "hk", "--for-peer", "sg", code=2)
    run("export", "-c", "new/gateway.toml", "-o", "-", "--endpoint", "a:1", code=2)
    run("export", "-c", "new/gateway.toml", "-o", "-", "--for-peer", "hk", "--endpoint", "a b", code=2)
    (folder / "plain.toml").write_text('[tun0]\naddress = "10.0.0.1/24"\n')
    run("export", "-c", "plain.toml", "-o", "-", code=4)
    one = run("export", "-c", "new/gateway.toml", "-o", "-", "--peer", "sg").stdout
    assert [peer.name for peer in read(one.encode(), "x").peers] == ["sg"]


def test_everything_that_wireguard_has_no_word_for_is_told(run: Run, folder: Path) -> None:
    (folder / "private.key").write_text(PRIVATE)
    (folder / "private.key").chmod(0o600)
    with (folder / "gateway.toml").open("a") as file:
        file.write(
            '[tunnel]\nprivate_key_file = "private.key"\nname = "home"\n[peer.hk]\n'
            f'public_key = "{KEYS[0]}"\nallowed_ips = ["0.0.0.0/0", "192.0.2.0/24"]\nvia = "sg"\n'
            f'[peer.sg]\npublic_key = "{KEYS[1]}"\nallowed_ips = ["192.0.2.0/24"]\nexit = true\n'
        )
    said = run("export", "-c", "gateway.toml", "-o", "-")
    for what in (
        "[tap0]",
        "[tap1]",
        "[offload]",
        "[alias]",
        "tunnel.name",
        "peer.hk.via",
        "peer.sg.exit",
        "route/sg:1",
    ):
        assert any(what in line for line in said.stderr.splitlines()), what
    hk, sg = read(said.stdout.encode(), "x").peers
    assert [str(prefix) for prefix in hk.allowed_ips] == ["0.0.0.0/0", "192.0.2.0/24"]
    assert sg.allowed_ips == ()


def test_the_other_end_gets_the_file_that_it_needs(run: Run, wg0: Path) -> None:
    wg0.write_text(SERVER)
    run("import", "wg0.conf", "-c", "new/gateway.toml")
    text = run("export", "-c", "new/gateway.toml", "-o", "-", "--for-peer", "bob", "--endpoint", "vpn.example").stdout
    assert PRIVATE not in text
    assert "\nPrivateKey" not in text
    theirs = read(text.replace("# PrivateKey = the", f"PrivateKey = {PRIVATE}\n# the").encode(), "x")
    assert [str(address) for _, address in theirs.addresses] == ["10.7.0.3/32"]
    (us,) = theirs.peers
    assert us.public_key == public_key(bytes(range(32)))
    assert us.preshared_key == bytes(range(50, 82))
    assert us.endpoint == "vpn.example:51820"
    assert [str(prefix) for prefix in us.allowed_ips] == ["0.0.0.0/0"]
    wg0.write_text(CLIENT)
    run("import", "wg0.conf", "-c", "new/gateway.toml", "--force")
    said = run("export", "-c", "new/gateway.toml", "-o", "-", "--for-peer", "hk")
    assert "AllowedIPs = 10.7.0.2/32\n" in said.stdout
    assert "ListenPort = 51820\n" in said.stdout
    assert "neither end knows" in run("export", "-c", "new/gateway.toml", "-o", "-", "--for-peer", "sg").stderr


@pytest.mark.parametrize("text", [CLIENT, SERVER, SPLIT, OFF], ids=["client", "server", "split", "table off"])
def test_wg_quick_reads_in_an_export_what_it_read_in_the_file(run: Run, wg0: Path, folder: Path, text: str) -> None:
    with needing_the_kernel():
        if shutil.which("wg-quick") is None or os.geteuid() != 0:
            raise Impossible("`wg-quick strip` takes root and Debian's wireguard-tools")

    def stripped(name: str) -> list[str]:
        printed = subprocess.run(
            ["wg-quick", "strip", f"./{name}"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        lines = ("".join(line.partition("#")[0].split()) for line in printed.splitlines())
        return sorted(line for line in lines if line)

    wg0.write_text(text)
    run("import", "wg0.conf", "-c", "new/gateway.toml")
    run("export", "-c", "new/gateway.toml", "-o", "back.conf")
    assert stripped("back.conf") == stripped("wg0.conf")
