"""The two MACs of a handshake message, cookies, and the demands under load (WireGuard whitepaper 5.3, 5.4.4, 5.4.7).

`CookieJar` serves our messages to one peer: it puts mac1 and mac2 under them, and keeps the cookie of the peer's reply.
`CookieDesk` serves messages to us: it checks mac1 and mac2, and makes cookie replies. It keeps no state for the
senders. `LoadGauge` decides when a message has to prove its source, `SourceLimits` how many handshakes a proven source
may have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunnel.constants import COOKIE_LIFE_NS
from tunnel.effects import Endpoint
from tunnel.messages import COOKIE_REPLY_HEAD, MACS_BYTES
from tunnel.primitives import MAC_BYTES, XNONCE_BYTES, digest, is_equal, mac, xopen, xseal
from wire.units import SECOND_NS

LOAD_HANDSHAKES: Final = 128
LOAD_STICKY_NS: Final = SECOND_NS
SOURCE_PERIOD_NS: Final = SECOND_NS // 20
SOURCE_BURST: Final = 5
SOURCES: Final = 8192

_MAC1_LABEL = b"mac1----"
_COOKIE_LABEL = b"cookie--"
_NO_MAC = bytes(MAC_BYTES)


class CookieJar:
    """The MACs under messages to the peer with the key `public`. A cookie is used for 120 s, and causes no message."""

    __slots__ = ("_cookie", "_cookie_key", "_mac1_key", "_sent_mac1", "_taken_ns")

    def __init__(self, public: bytes) -> None:
        self._mac1_key = digest(_MAC1_LABEL, public)
        self._cookie_key = bytearray(digest(_COOKIE_LABEL, public))
        self._cookie: bytes | None = None
        self._taken_ns = 0
        self._sent_mac1: bytes | None = None

    def finish(self, body: bytes, now: int) -> bytes:
        """The handshake message with this body: mac1 is always there, mac2 is zero without a cookie."""
        mac1 = mac(self._mac1_key, body)
        self._sent_mac1 = mac1
        message = body + mac1
        if self._cookie is not None and now - self._taken_ns >= COOKIE_LIFE_NS:
            self._cookie = None
        return message + (_NO_MAC if self._cookie is None else mac(self._cookie, message))

    def accept_reply(self, reply: bytes, now: int) -> bool:
        """Keep the cookie of a reply to our last message; False where the reply does not answer that message."""
        if self._sent_mac1 is None:
            return False
        cookie = xopen(self._cookie_key, reply[8 : 8 + XNONCE_BYTES], reply[8 + XNONCE_BYTES :], self._sent_mac1)
        if cookie is None:
            return False
        self._cookie = cookie
        self._taken_ns = now
        self._sent_mac1 = None
        return True


class CookieDesk:
    """The MACs of messages to us, whose key is `public`. The secret behind the cookies is drawn anew every 120 s."""

    __slots__ = ("_cookie_key", "_mac1_key", "_random_bytes", "_secret", "_since_ns")

    def __init__(self, public: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._mac1_key = digest(_MAC1_LABEL, public)
        self._cookie_key = bytearray(digest(_COOKIE_LABEL, public))
        self._random_bytes = random_bytes
        self._secret: bytes | None = None
        self._since_ns = 0

    def is_addressed(self, message: bytes) -> bool:
        """True where mac1 is right: the sender knows our public key."""
        end = len(message) - MACS_BYTES
        return is_equal(mac(self._mac1_key, message[:end]), message[end : end + MAC_BYTES])

    def is_proven(self, message: bytes, source: Endpoint, now: int) -> bool:
        """True where mac2 is right: the sender has the cookie that we sent to this source less than 120 s ago."""
        end = len(message) - MAC_BYTES
        if self._is_stale(now) or message[end:] == _NO_MAC:
            return False
        return is_equal(mac(self._cookie(source, now), message[:end]), message[end:])

    def reply(self, message: bytes, source: Endpoint, now: int) -> bytes:
        """A cookie reply to a message whose mac1 is right."""
        end = len(message) - MACS_BYTES
        nonce = self._random_bytes(XNONCE_BYTES)
        sealed = xseal(self._cookie_key, nonce, self._cookie(source, now), message[end : end + MAC_BYTES])
        return b"".join((COOKIE_REPLY_HEAD, message[4:8], nonce, sealed))

    def _is_stale(self, now: int) -> bool:
        return self._secret is None or now - self._since_ns >= COOKIE_LIFE_NS

    def _cookie(self, source: Endpoint, now: int) -> bytes:
        if self._secret is None or self._is_stale(now):
            self._secret = self._random_bytes(32)
            self._since_ns = now
        return mac(self._secret, source.packed())


class LoadGauge:
    """We are under load where 128 handshake messages more came than 128 a second would explain, and for 1 s after
    that."""

    __slots__ = ("_level_ns", "_seen_ns", "_until_ns")

    def __init__(self) -> None:
        self._level_ns = 0
        self._seen_ns = 0
        self._until_ns = 0

    def is_under_load(self, now: int) -> bool:
        """Count a handshake message; True where it must prove its source."""
        self._level_ns = max(self._level_ns - (now - self._seen_ns), 0) + SECOND_NS // LOAD_HANDSHAKES
        self._seen_ns = now
        if self._level_ns >= SECOND_NS:
            self._level_ns = SECOND_NS
            self._until_ns = now + LOAD_STICKY_NS
        return now < self._until_ns


class SourceLimits:
    """A source may have 20 handshakes a second, 5 of them at once. IPv6 sources count by their /64.

    8,192 sources are remembered. While all of them are active, other sources are refused.
    """

    __slots__ = ("_full_ns",)

    def __init__(self) -> None:
        # By source, the time at which it may have a whole burst again.
        self._full_ns: dict[bytes, int] = {}

    def allows(self, source: Endpoint, now: int) -> bool:
        """Count a handshake of the source; False where it is one too many."""
        key = source.address[:8]
        full = self._full_ns.get(key)
        if full is None and len(self._full_ns) >= SOURCES:
            self._full_ns = {known: ns for known, ns in self._full_ns.items() if ns > now}
            if len(self._full_ns) >= SOURCES:
                return False
        full = now if full is None else max(full, now)
        if full - now > (SOURCE_BURST - 1) * SOURCE_PERIOD_NS:
            return False
        self._full_ns[key] = full + SOURCE_PERIOD_NS
        return True
