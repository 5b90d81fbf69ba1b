"""Waiting for bridges that are not there yet: `bridgectl run --wait`.

At a boot the gateway may be started before the bridges are made, or while their namespace is missing. Nothing is open
yet while it waits, so a signal ends the process at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bridge.config.into_devices import plans_from
from bridge.config.model import Config
from bridge.daemon.notify import notify
from bridge.daemon.setup import StartFailed
from bridge.ports.bridges import mtu_of

LOOK_AGAIN_S: Final = 0.2


def missing_bridges(config: Config) -> list[str]:
    """The bridges that the configuration names and the machine does not have, as `br0 (tap0)`."""
    return [
        f"{plan.bridge} ({plan.port})"
        for plan in plans_from(config)
        if plan.bridge is not None and mtu_of(plan.bridge, plan.netns) is None
    ]


def wait_for_bridges(
    config: Config,
    wait_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait at most `wait_s` seconds until all bridges are there. True where one was missing at first: what the
    configuration takes from its bridges has to be read again.

    Raises `StartFailed` where one is still missing then.
    """
    end = clock() + wait_s
    missing = missing_bridges(config)
    was_missing = bool(missing)
    if was_missing:
        notify(f"STATUS=waiting for {', '.join(missing)}")
    while missing:
        left = end - clock()
        if left <= 0:
            raise StartFailed(f"waited {wait_s:g} s: there is no bridge {', no bridge '.join(missing)}")
        sleep(min(left, LOOK_AGAIN_S))
        missing = missing_bridges(config)
    return was_missing
