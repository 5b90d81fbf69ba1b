"""The README's files for both ends of a tunnel: valid as they stand, and fit for each other."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from bridge.config.load import load

README = (Path(__file__).parents[3] / "README.md").read_text()
GATEWAY, ADDITION, EXIT = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_both_files_of_the_readme_are_valid_and_know_each_others_addresses(tmp_path: Path) -> None:
    (tmp_path / "private.key").write_bytes(base64.b64encode(bytes(range(32))))
    (tmp_path / "private.key").chmod(0o600)
    (tmp_path / "offload.txt").write_text("114.114.114.0/24\n")
    for name, text in (("gateway.toml", GATEWAY + ADDITION), ("exit.toml", EXIT)):
        (tmp_path / name).write_text(text)
    home, far = (load(tmp_path / name, "check") for name in ("gateway.toml", "exit.toml"))
    assert not home.warnings
    assert not far.warnings
    assert home.default_node == "exit"
    assert home.vpn is not None
    assert home.vpn.address is not None
    assert far.tun0 is not None
    [accepted] = far.peer["home"].allowed_ips
    assert str(accepted) == f"{home.vpn.address}/32"
    assert home.vpn.address in far.tun0.address.network
