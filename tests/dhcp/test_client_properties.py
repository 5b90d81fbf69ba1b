"""Any events in any order leave a client's state, lease and timers in agreement."""

from __future__ import annotations

from dhcp_bench import ADDRESS, OTHER_SERVER, SERVER, Bench, granted
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp.states import ClientState

_MESSAGES = st.tuples(
    st.sampled_from(["offer", "ack", "nak", "forcerenew"]),
    st.sampled_from([SERVER, OTHER_SERVER]),
    st.sampled_from([ADDRESS, "192.168.1.60", "192.168.200.7"]),
    st.sampled_from([4, 60, 3600, 0xFFFFFFFF]),
)
_STEPS = st.lists(
    st.one_of(_MESSAGES, st.sampled_from(["renew", "release", "reattach", "conflict"]), st.floats(0.0, 4000.0)),
    max_size=40,
)


def check(bench: Bench) -> None:
    client = bench.client
    port = bench.leases[-1] if bench.leases else None
    assert port == client.lease, "the port has the lease that the client has"
    if client.state in (ClientState.BOUND, ClientState.RENEWING, ClientState.REBINDING):
        assert client.lease is not None
    if client.lease is None:
        assert (client.renew_ns, client.rebind_ns, client.expiry_ns) == (None, None, None)
    due = client.next_deadline()
    assert due is None or due > int(bench.now * 1e9) - 1
    if due is None:
        assert client.state in (ClientState.INIT, ClientState.BOUND), "nothing is waited for without a timer"


@settings(max_examples=40)  # scapy writes each message
@given(_STEPS)
def test_d1_state_lease_and_timers_agree_after_any_sequence_of_events(
    steps: list[tuple[str, str, str, int] | str | float],
) -> None:
    bench = Bench()
    bench.starts()
    for step in steps:
        if isinstance(step, str):
            bench.does(step, bench.now)
        elif isinstance(step, float):
            bench.runs_until(bench.now + step)
        else:
            kind, server, address, lease = step
            bench.answers(kind, granted(lease=lease, router=address), server=server, address=address)
        check(bench)
    for before, after in zip(bench.leases, bench.leases[1:], strict=False):
        assert before is not None or after is not None, "an address that is not there is not taken away"
