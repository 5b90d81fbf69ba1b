"""The tunnel's other end, whoever it is: its keys, and what the gateway's configuration says of it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from lab.outside import OUTER_EXIT
from lab.topology import CONFIGURATION, TUNNELLED, Lab
from tunnel.primitives import public_key

OUR_PORT, FAR_PORT = 51820, 51821


class KeyFile:
    """A fresh key in a file with mode 0600; `public` belongs to it."""

    def __init__(self, path: Path) -> None:
        key = os.urandom(32)
        self.path = path
        self.text = base64.b64encode(key).decode()
        self.public = base64.b64encode(public_key(key)).decode()
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.text + "\n")


class OtherEnd:
    """Common to all other ends. `serves`: the address that is reached through it; `name`: the gateway's name for it.

    Its keys are fresh, and so is the gateway's unless it is one `beside` another. `what` is it, for people; `hops`: the
    addresses by which it shows itself to a traceroute.
    """

    what = "another end"
    hops: tuple[str, ...] = ()

    def __init__(
        self,
        lab: Lab,
        *,
        name: str = "hk",
        port: int = FAR_PORT,
        serves: str = TUNNELLED,
        beside: OtherEnd | None = None,
    ) -> None:
        lab.join_outside()
        self.name, self.port, self.serves = name, port, serves
        self.ours: KeyFile = KeyFile(lab.folder / "private.key") if beside is None else beside.ours
        self.far = KeyFile(lab.folder / f"{name}.key")
        self.psk = KeyFile(lab.folder / f"{name}.psk")

    def configuration(
        self, *, endpoint: str | None = f"{OUTER_EXIT}:{FAR_PORT}", psk: bool = False, keepalive: int = 0
    ) -> str:
        """The gateway's configuration, with the far end as its default node."""
        return (
            CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', "").replace('"hk"', f'"{self.name}"')
            + f'\n[tunnel]\nprivate_key_file = "{self.ours.path}"\nlisten_port = {OUR_PORT}\n'
            + 'state_file = "tunnel.json"\n'
            + self.table("0.0.0.0/0", endpoint=endpoint, psk=psk, keepalive=keepalive)
        )

    def table(self, allowed: str, *, endpoint: str | None, psk: bool = False, keepalive: int = 0) -> str:
        """Its table in the gateway's configuration."""
        return (
            f'[peer.{self.name}]\npublic_key = "{self.far.public}"\nallowed_ips = ["{allowed}"]\n'
            + (f'endpoint = "{endpoint}"\n' if endpoint else "")
            + (f'preshared_key_file = "{self.psk.path.name}"\n' if psk else "")
            + (f"persistent_keepalive = {keepalive}\n" if keepalive else "")
        )
