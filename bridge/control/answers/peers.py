"""`bridgectl peers`: the other ends of the tunnel."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.config.into_tunnel import endpoint_text, prefix_of
from bridge.config.model import Config, PeerTable
from bridge.control.answers.question import Arguments, Subject, document, question, seconds
from bridge.control.protocol import Document
from tunnel.effects import Status


@question("peers")
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The tunnel's peers."""
    return document(peers=[]) if subject.config is None else described(subject.config, statuses(subject), now)


def statuses(subject: Subject) -> list[Status]:
    """The state of each peer that the tunnel serves; empty without a tunnel."""
    return subject.tunnel.status() if subject.tunnel is not None else []


def described(config: Config, statuses: Iterable[Status], now: int) -> Document:
    """The peers in the order of the configuration, also those that the tunnel does not serve."""
    by_name = {status.name: status for status in statuses}
    return document(peers=[_peer(name, peer, by_name.get(name), now) for name, peer in config.peer.items()])


def _peer(name: str, peer: PeerTable, status: Status | None, now: int) -> Document:
    endpoint = status.endpoint if status is not None and peer.via is None else None
    return {
        "name": name,
        "public_key": peer.public_key,
        "endpoint": None if endpoint is None else endpoint_text(endpoint),
        "via": peer.via,
        "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
        "latest_handshake_s": _since(status.latest_handshake, now) if status is not None else None,
        "rx_bytes": status.rx_bytes if status is not None else 0,
        "tx_bytes": status.tx_bytes if status is not None else 0,
        "persistent_keepalive_s": peer.persistent_keepalive or None,
        "session_age_s": _since(status.session_since, now) if status is not None else None,
        "mtu": status.mtu_bytes if status is not None else None,
        "mtu_state": status.path if status is not None else None,
        "waiting": status.staged if status is not None else 0,
        "state": _state(status),
        "accept": [str(prefix) for prefix in peer.accept],
        **(_announcements(status) if status is not None else {"announced": [], "refused": [], "told": []}),
    }


def _announcements(status: Status) -> Document:
    """The prefixes that the peer announces, accepted and refused, and its answers to the prefixes that we announce."""
    verdicts = [(str(prefix_of(network)), verdict) for network, verdict in status.announced if verdict is not None]
    told = [(str(prefix_of(network)), verdict) for network, verdict in status.told]
    return {
        "announced": [prefix for prefix, verdict in verdicts if not verdict.is_refusal],
        "refused": [{"prefix": prefix, "reason": verdict.says} for prefix, verdict in verdicts if verdict.is_refusal],
        "told": [{"prefix": prefix, "answer": None if verdict is None else verdict.says} for prefix, verdict in told],
    }


STATES = ("up", "idle", "no answer", "no endpoint", "not served")
"""Every value of `state`."""


def _state(status: Status | None) -> str:
    if status is None:
        return "not served"
    if status.has_session:
        return "up"
    if status.endpoint is None:
        return "no endpoint"
    return "no answer" if status.has_given_up else "idle"


def _since(then: int | None, now: int) -> float | None:
    return None if then is None else seconds(now - then)
