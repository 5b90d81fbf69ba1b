"""The kernel side's MAC address of a tap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.ports.netif import kernel_mac


@given(st.binary(min_size=6, max_size=6))
def test_it_is_another_station_s_local_and_high_so_that_no_bridge_takes_it(own: bytes) -> None:
    mac = kernel_mac(own)
    assert mac != own
    assert len(mac) == 6
    assert mac[0] & 3 == 2  # no group, locally administered
    assert mac[0] >= 0xFA
