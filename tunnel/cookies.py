"""The two MACs of a handshake message, cookies, and what is asked for under load.

`CookieJar` is one peer as we call it: it puts mac1 and mac2 under our messages and takes the peer's cookie replies.
`CookieDesk` is ourselves as we are called: mac1, mac2, cookie replies. No state is kept for those who are sent one.
`LoadGauge` says when cookies are asked for, `SourceLimits` how many handshakes a proven source may have then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunnel.effects import Endpoint
from tunnel.messages import COOKIE_REPLY_HEAD, MACS_BYTES
from tunnel.primitives import MAC_BYTES, XNONCE_BYTES, digest, is_equal, mac, xopen, xseal
from wire.units import SECOND_NS

COOKIE_LIFE_NS: Final = 120 * SECOND_NS
LOAD_HANDSHAKES: Final = 128
LOAD_STICKY_NS: Final = SECOND_NS
SOURCE_PERIOD_NS: Final = SECOND_NS // 20
SOURCE_BURST: Final = 5
SOURCES: Final = 8192

_MAC1_LABEL = b"mac1----"
_COOKIE_LABEL = b"cookie--"
_NO_MAC = bytes(MAC_BYTES)


class CookieJar:
    """The MACs towards one peer. A cookie is used for 120 s; it never causes a message of its own."""

    __slots__ = ("_cookie", "_cookie_key", "_mac1_key", "_sent_mac1", "_taken_ns")

    def __init__(self, public: bytes) -> None:
        self._mac1_key = digest(_MAC1_LABEL, public)
        self._cookie_key = bytearray(digest(_COOKIE_LABEL, public))
        self._cookie: bytes | None = None
        self._taken_ns = 0
        self._sent_mac1: bytes | None = None

    def finish(self, body: bytes, now: int) -> bytes:
        """A handshake message out of its body: mac1 always, mac2 where a cookie is at hand."""
        mac1 = mac(self._mac1_key, body)
        self._sent_mac1 = mac1
        message = body + mac1
        if self._cookie is not None and now - self._taken_ns >= COOKIE_LIFE_NS:
            self._cookie = None
        return message + (_NO_MAC if self._cookie is None else mac(self._cookie, message))

    def take(self, reply: bytes, now: int) -> bool:
        """Keep the cookie of a reply to our last message; False where the reply answers nothing that we sent."""
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
    """The MACs of messages to us. The secret behind the cookies is drawn anew every 120 s."""

    __slots__ = ("_cookie_key", "_mac1_key", "_random_bytes", "_secret", "_since_ns")

    def __init__(self, public: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._mac1_key = digest(_MAC1_LABEL, public)
        self._cookie_key = bytearray(digest(_COOKIE_LABEL, public))
        self._random_bytes = random_bytes
        self._secret: bytes | None = None
        self._since_ns = 0

    def is_addressed(self, message: bytes) -> bool:
        """mac1: the sender knows our public key."""
        end = len(message) - MACS_BYTES
        return is_equal(mac(self._mac1_key, message[:end]), message[end : end + MAC_BYTES])

    def is_proven(self, message: bytes, source: Endpoint, now: int) -> bool:
        """mac2: the sender holds the cookie that we sent to this source less than 120 s ago."""
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
    """Under load: 128 handshake messages more than 128 a second would explain; then for a second at least."""

    __slots__ = ("_level_ns", "_seen_ns", "_until_ns")

    def __init__(self) -> None:
        self._level_ns = 0
        self._seen_ns = 0
        self._until_ns = 0

    def is_under_load(self, now: int) -> bool:
        """Count one handshake message, and whether it must prove its source."""
        self._level_ns = max(self._level_ns - (now - self._seen_ns), 0) + SECOND_NS // LOAD_HANDSHAKES
        self._seen_ns = now
        if self._level_ns >= SECOND_NS:
            self._level_ns = SECOND_NS
            self._until_ns = now + LOAD_STICKY_NS
        return now < self._until_ns


class SourceLimits:
    """20 handshakes a second of one source address, 5 at once. IPv6 sources count by their /64.

    8,192 sources are known at once; while all of them are active, others are refused.
    """

    __slots__ = ("_full_ns",)

    def __init__(self) -> None:
        # When each source will have its whole burst again.
        self._full_ns: dict[bytes, int] = {}

    def allows(self, source: Endpoint, now: int) -> bool:
        """Count one handshake of the source; False where it has had its share."""
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
