"""The DHCP client of one port: what is asked, when, and what of the answers is believed.

RFC 2131 4.4.1 (DISCOVER, OFFER, REQUEST): `_fire`, `_offered`; 4.4.2 (asking again for a known address): `_reboot`;
4.4.5 (T1, T2, expiry): `next_deadline`, `_expire`, `_ask_again`; 4.1 (retransmission): `_backoff_ns`; 4.4.4 and 4.4.6
(DECLINE, RELEASE): `conflict`, `release`. `dhcp.questions` writes the messages.
RFC 3203 and 3118 (FORCERENEW is only believed with authentication, which is not done): `receive`. RFC 6842 (an answer
names the client's own identifier or none): `receive`. The states are in `dhcp.states`.

A lease and a state are two things: while the client asks again for its address after the link was away, or looks for
another server because nobody answered, the port keeps an address whose lease has not ended.
"""

from __future__ import annotations

import random
from typing import Final

from dhcp import datagram, questions
from dhcp import options as option
from dhcp.effects import Assume, Broadcast, ClientEffect, LeaseChanged, MessageDropped, Remember, Submit, Vacate
from dhcp.lease import Lease, Refusal, conflict_of, judge
from dhcp.message import BOOT_REPLY, Kind, Message
from dhcp.settings import ClientSettings
from dhcp.states import NEXT, ClientEvent, ClientState
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS, earliest

FIRST_RETRY_NS: Final = 4 * SECOND_NS
LAST_RETRY_NS: Final = 64 * SECOND_NS
RETRY_SPREAD_NS: Final = SECOND_NS  # each interval is this much shorter or longer, at most
REQUESTS: Final = 5  # for one offer, 60 s in all; then the client begins anew
REBOOT_NS: Final = 8 * SECOND_NS  # so long a known address is asked for, twice
RENEW_RETRY_NS: Final = 60 * SECOND_NS
DECLINE_PAUSE_NS: Final = 10 * SECOND_NS
PROBE_NS: Final = 7 * SECOND_NS  # RFC 5227 2.1.1: an address is ours, at the latest, when its probes are through
FOREIGN_NAK_NS: Final = SECOND_NS  # so long an ACK of the lease's own server may still overrule another one's NAK

_ANSWERS = frozenset({Kind.OFFER, Kind.ACK, Kind.NAK})
_AWAITS_ACK = frozenset({ClientState.REQUESTING, ClientState.RENEWING, ClientState.REBINDING, ClientState.REBOOTING})
_ASKED_ONE_SERVER = frozenset({ClientState.REQUESTING, ClientState.RENEWING})
_BEARS_LEASE = frozenset({ClientState.BOUND, ClientState.RENEWING, ClientState.REBINDING})


class Client:
    """`settings`: may be replaced by `reconfigure`. `rng`: for the spread of intervals. `xids`: for nothing but the
    transaction ids, one for each exchange and for each repeat of a renewal, so that they depend on no timing. `now` is
    in ns and never runs backwards.

    `state`: of the exchange. `lease`: the port's, None where it has no address. `answers`: ACKs and NAKs that were
    believed, for who waits for one. `obtained_ns`, `renew_ns`, `rebind_ns`, `expiry_ns`: of the lease; None for an
    infinite one.
    """

    __slots__ = (
        "_asked_ns",
        "_began_ns",
        "_due_ns",
        "_foreign_nak",
        "_naks",
        "_offer",
        "_probed_ns",
        "_refused",
        "_rng",
        "_sent",
        "_silent_server",
        "_spare",
        "_wanted",
        "_xid",
        "_xids",
        "answers",
        "expiry_ns",
        "lease",
        "obtained_ns",
        "rebind_ns",
        "renew_ns",
        "settings",
        "state",
    )

    def __init__(self, settings: ClientSettings, rng: random.Random, xids: random.Random) -> None:
        self.settings = settings
        self._rng = rng
        self._xids = xids
        self.state = ClientState.INIT
        self.lease: Lease | None = None
        self.answers = 0
        self.obtained_ns = 0
        self.renew_ns: int | None = None
        self.rebind_ns: int | None = None
        self.expiry_ns: int | None = None
        self._xid = 0
        self._due_ns: int | None = None  # when the state's next message leaves
        self._sent = 0  # messages of the exchange
        self._began_ns = 0  # when the first message of the exchange left, for its field `secs`
        self._asked_ns = 0  # when the first REQUEST under this transaction id left: a lease runs from there
        self._offer: Lease | None = None  # the one that is requested
        self._spare: Lease | None = None  # an offer of a server that went silent before: taken if no other comes
        self._silent_server = 0
        self._wanted: Lease | None = None  # the lease that is asked for again
        self._foreign_nak: tuple[int, Message] | None = None  # when it counts, and the NAK
        self._refused: set[tuple[int, int, Refusal]] = set()  # told in this exchange
        self._naks = 0  # in a row
        self._probed_ns = 0  # until then a conflict is one of the probes

    # The gateway's side

    def start(self, now: int, remembered: Lease | None = None) -> list[ClientEffect]:
        """Begin: with the lease of an earlier run where one is remembered that still fits, else with DISCOVER."""
        if remembered is not None and conflict_of(remembered, self.settings.limits) is None:
            return self._reboot(remembered, now)
        return self._begin(now)

    def reconfigure(self, settings: ClientSettings, now: int) -> list[ClientEffect]:
        """A reload. A lease that does not fit any more is given back. With anything else that is new the server is
        asked again at once, and the address stays meanwhile. A client that was stopped starts again."""
        before, self.settings = self.settings, settings
        refusal = conflict_of(self.lease, settings.limits) if self.lease is not None else None
        if self.lease is not None and refusal is not None:
            told = LeaseChanged("refused", self.lease.address, str(refusal))
            return [*self._give_back(now), told, *self._begin(now)]
        if self._is_stopped():
            return self._begin(now)
        return self.reattach(now) if settings != before else []

    def renew(self, now: int) -> list[ClientEffect]:
        """The operator wants an answer now: of the lease's server, else of any."""
        if self.state in _BEARS_LEASE:
            if self.state is ClientState.BOUND:
                self._enter(ClientEvent.RENEW)
                self._new_exchange(now)
            return self._ask_again(now)
        if self.state is ClientState.INIT:
            return self._begin(now)
        self._due_ns = now
        return self.tick(now)

    def release(self, now: int) -> list[ClientEffect]:
        """The operator gives the lease back, and nothing is asked before `renew`, `reconfigure` or `start`."""
        lease = self.lease
        effects = self._give_back(now)
        return [*effects, LeaseChanged("released", lease.address)] if lease is not None else effects

    def _give_back(self, now: int) -> list[ClientEffect]:
        effects: list[ClientEffect] = []
        if self.lease is not None:
            self._new_exchange(now)
            effects.append(Submit(questions.release(self.settings, self._xid, self.lease)))
        effects += [*self._vacate(), Remember(None)]
        self._enter(ClientEvent.RELEASED)
        self._due_ns = None
        return effects

    def reattach(self, now: int) -> list[ClientEffect]:
        """The link was away, or the ISP router is another one: ask at once whether the address still holds. The port
        keeps it until a server says no."""
        if self._is_stopped():
            return []
        wanted = self.lease or (self._wanted if self.state is ClientState.REBOOTING else None)
        return self._reboot(wanted, now) if wanted is not None else self._begin(now)

    def conflict(self, now: int) -> list[ClientEffect]:
        """Another host uses the leased address. Within the probes that follow an ACK the lease is declined; later the
        port defends its address, and nothing happens here."""
        lease = self.lease
        if lease is None or self.state not in _BEARS_LEASE or now >= self._probed_ns:
            return []
        effects = [self._decline(lease.address, lease.server, now), *self._vacate(), Remember(None)]
        self._enter(ClientEvent.CONFLICT)
        self._due_ns = now + DECLINE_PAUSE_NS
        return [*effects, LeaseChanged("declined", lease.address, "another host uses it")]

    # A message comes in

    def receive(self, packet: Packet, now: int) -> list[ClientEffect]:
        """Take in a UDP packet to port 68 whose ports have been read. The outcome is effects for any bytes."""
        heard = datagram.read(packet)
        if isinstance(heard, Drop):
            return [MessageDropped(heard)]
        own = self.settings
        if heard.op != BOOT_REPLY or heard.chaddr != own.mac:
            return [MessageDropped(Drop.DHCP_NOT_OURS)]
        if own.client_id and heard.options.get(option.CLIENT_IDENTIFIER, own.client_id) != own.client_id:
            return [MessageDropped(Drop.DHCP_NOT_OURS)]
        if heard.kind == Kind.FORCERENEW:
            return [MessageDropped(Drop.DHCP_FORCERENEW)]
        if heard.kind not in _ANSWERS:
            return [MessageDropped(Drop.DHCP_UNEXPECTED)]
        if not heard.server:
            return [MessageDropped(Drop.DHCP_MALFORMED)]
        if heard.xid != self._xid:
            return [MessageDropped(Drop.DHCP_UNEXPECTED)]
        if heard.kind == Kind.OFFER and self.state is ClientState.SELECTING:
            return self._offered(heard, now)
        if heard.kind == Kind.OFFER or self.state not in _AWAITS_ACK or not self._may_answer(heard):
            return [MessageDropped(Drop.DHCP_UNEXPECTED)]
        return self._acked(heard, now) if heard.kind == Kind.ACK else self._naked(heard, now)

    def _may_answer(self, heard: Message) -> bool:
        """True unless one server was asked and another one answers."""
        return self.state not in _ASKED_ONE_SERVER or heard.server == self._asked_for().server

    def _offered(self, heard: Message, now: int) -> list[ClientEffect]:
        """The first acceptable offer is taken. A server that did not answer our last REQUEST waits for another one."""
        offer = judge(heard, self.settings.limits)
        if isinstance(offer, Refusal):
            return self._tell_refused(heard, offer)
        if offer.server == self._silent_server:
            self._spare = self._spare or offer
            return []
        return self._take(offer, now)

    def _take(self, offer: Lease, now: int) -> list[ClientEffect]:
        self._offer = offer
        self._enter(ClientEvent.OFFERED)
        self._sent = 0
        self._asked_ns = self._due_ns = now
        return self.tick(now)

    def _acked(self, heard: Message, now: int) -> list[ClientEffect]:
        lease = judge(heard, self.settings.limits)
        if isinstance(lease, Refusal):
            return self._refuse(heard, lease, now)
        held = self.lease
        self.answers += 1
        self._naks = 0
        self._silent_server = 0
        self._foreign_nak = None
        self._enter(ClientEvent.ACKED)
        self.lease = lease
        self.obtained_ns = self._asked_ns
        self.renew_ns, self.rebind_ns, self.expiry_ns = (
            None if seconds is None else self._asked_ns + seconds * SECOND_NS
            for seconds in (lease.renew_s, lease.rebind_s, lease.duration_s)
        )
        self._due_ns = self.renew_ns
        is_new = held is None or held.address != lease.address
        if is_new:
            self._probed_ns = now + PROBE_NS
        return [Assume(lease), Remember(lease), LeaseChanged("bound" if is_new else "renewed", lease.address)]

    def _refuse(self, heard: Message, refusal: Refusal, now: int) -> list[ClientEffect]:
        """A server granted what the gateway cannot live with. A lease in force is not lost by a message without a
        lease time; an address that must not be used is given back."""
        effects = self._tell_refused(heard, refusal)
        if self.lease is not None and refusal in (Refusal.TIME, Refusal.ADDRESS, Refusal.MASK):
            return effects
        if refusal in (Refusal.OVERLAP, Refusal.GATEWAY, Refusal.EDGE):
            effects.append(self._decline(heard.yiaddr, heard.server, now))
        effects += [*self._vacate(), Remember(None)]
        self._enter(ClientEvent.REFUSED)
        self._due_ns = now + DECLINE_PAUSE_NS
        return effects

    def _tell_refused(self, heard: Message, refusal: Refusal) -> list[ClientEffect]:
        """Counted each time, told once in an exchange."""
        effects: list[ClientEffect] = [MessageDropped(Drop.DHCP_REFUSED)]
        told = (heard.server, heard.yiaddr, refusal)
        if told not in self._refused and len(self._refused) < REQUESTS:
            self._refused.add(told)
            effects.append(LeaseChanged("refused", heard.yiaddr, str(refusal)))
        return effects

    def _naked(self, heard: Message, now: int) -> list[ClientEffect]:
        """A server that was asked says no. Where all were asked, one that did not grant the lease waits for the one
        that did: a stranger's NAK must not end a lease that its own server confirms (row D14)."""
        if heard.server != self._asked_for().server:
            if self._foreign_nak is None:
                self._foreign_nak = now + FOREIGN_NAK_NS, heard
            return []
        return self._give_in(heard, now)

    def _give_in(self, heard: Message, now: int) -> list[ClientEffect]:
        """Begin anew: at once, but after a second NAK in a row only after a pause that doubles."""
        self.answers += 1
        told = LeaseChanged("nak", self._asked_for().address, heard.text)
        is_offer = self.state is ClientState.REQUESTING  # an address in use, or one to be asked for again, is not meant
        effects = [told] if is_offer else [*self._vacate(), Remember(None), told]
        self._enter(ClientEvent.NAKED)
        pause = min(SECOND_NS << min(self._naks - 1, 8), LAST_RETRY_NS) if self._naks else 0
        self._naks += 1
        self._due_ns = now + pause
        return effects + self.tick(now)

    # Time

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns; None where the client is stopped or the lease infinite."""
        due = earliest(self._due_ns, self.expiry_ns if self.lease is not None else None)
        if self.state in (ClientState.BOUND, ClientState.RENEWING):
            due = earliest(due, self.rebind_ns)
        return earliest(due, self._foreign_nak[0] if self._foreign_nak is not None else None)

    def tick(self, now: int) -> list[ClientEffect]:
        """Fire what is due. A late call sends one message, not the missed ones. Afterwards `next_deadline` is later
        than `now`."""
        effects: list[ClientEffect] = []
        while (due := self.next_deadline()) is not None and due <= now:
            if self.lease is not None and self.expiry_ns is not None and self.expiry_ns <= now:
                effects += self._expire(now)
            elif self._foreign_nak is not None and self._foreign_nak[0] <= now:
                heard = self._foreign_nak[1]
                self._foreign_nak = None
                effects += self._give_in(heard, now)
            elif (
                self.state in (ClientState.BOUND, ClientState.RENEWING)
                and self.rebind_ns is not None
                and self.rebind_ns <= now
            ):
                self._enter(ClientEvent.REBIND)
                self._new_exchange(now)
                effects += self._ask_again(now)
            else:
                effects += self._fire(now)
        return effects

    def _fire(self, now: int) -> list[ClientEffect]:
        """Send what the state sends, and set when it is sent again."""
        if self.state in _BEARS_LEASE:
            if self.state is ClientState.BOUND:
                self._enter(ClientEvent.RENEW)
                self._new_exchange(now)
            return self._ask_again(now)
        if self.state in (ClientState.INIT, ClientState.INIT_REBOOT):
            self._enter(ClientEvent.TIMER)
            self._new_exchange(now)
        if self._gives_up(now):
            return self._begin(now)
        if self.state is ClientState.SELECTING and self._spare is not None:
            return self._take(self._spare, now)
        self._due_ns = now + self._backoff_ns()
        if self.state is ClientState.REBOOTING:
            self._due_ns = min(self._due_ns, self._began_ns + REBOOT_NS)
        self._sent += 1
        return [Broadcast(self._question(now))]

    def _question(self, now: int) -> bytes:
        """The frame to all servers of a state in which the client looks for an address."""
        exchange = self.settings, self._xid, self._secs(now)
        if self.state is ClientState.SELECTING:
            return questions.discover(*exchange)
        write = questions.request_offer if self.state is ClientState.REQUESTING else questions.request_known
        return write(*exchange, self._asked_for())

    def _gives_up(self, now: int) -> bool:
        """True where nobody has answered a REQUEST in its time; the state is INIT then."""
        if self.state is ClientState.REQUESTING and self._sent == REQUESTS:
            assert self._offer is not None
            self._silent_server = self._offer.server
        elif self.state is not ClientState.REBOOTING or now < self._began_ns + REBOOT_NS:
            return False
        self._enter(ClientEvent.SILENT)
        return True

    def _ask_again(self, now: int) -> list[ClientEffect]:
        """RENEWING and REBINDING: the next question leaves after half of the time that remains, at least 60 s.

        Each repeat has a transaction id of its own, so that an answer names the question that it answers and the lease
        runs from there. Hours may lie between the first question and the one that is answered.
        """
        lease = self.lease
        assert lease is not None
        if self._sent:
            self._xid = self._xids.getrandbits(32)
            self._asked_ns = now
        self._sent += 1
        end = self.rebind_ns if self.state is ClientState.RENEWING else self.expiry_ns
        wait = RENEW_RETRY_NS if end is None else max((end - now) // 2, RENEW_RETRY_NS)
        self._due_ns = now + wait
        exchange = self.settings, self._xid, self._secs(now)
        if self.state is ClientState.RENEWING:
            return [Submit(questions.renewal(*exchange, lease))]
        return [Broadcast(questions.rebinding(*exchange, lease))]

    def _expire(self, now: int) -> list[ClientEffect]:
        """Nobody renewed the lease: the address is gone at once. A search for a server that is under way goes on."""
        assert self.lease is not None
        told = LeaseChanged("expired", self.lease.address)
        effects = [*self._vacate(), Remember(None), told]
        if self.state in _BEARS_LEASE:
            self._enter(ClientEvent.EXPIRED)
            self._due_ns = now
        return effects

    def _backoff_ns(self) -> int:
        """RFC 2131 4.1: 4, 8, 16, 32, 64 s, each up to a second shorter or longer."""
        interval = min(FIRST_RETRY_NS << min(self._sent, 8), LAST_RETRY_NS)
        return interval + self._rng.randint(-RETRY_SPREAD_NS, RETRY_SPREAD_NS)

    # Steps

    def _begin(self, now: int) -> list[ClientEffect]:
        """DISCOVER at once."""
        self._enter(ClientEvent.RESTARTED)
        self._due_ns = now
        return self.tick(now)

    def _reboot(self, wanted: Lease, now: int) -> list[ClientEffect]:
        """Ask for a known address at once."""
        self._wanted = wanted
        self._enter(ClientEvent.REATTACHED)
        self._due_ns = now
        return self.tick(now)

    def _enter(self, event: ClientEvent) -> None:
        self.state = NEXT[self.state, event]
        self._foreign_nak = None

    def _is_stopped(self) -> bool:
        return self.state is ClientState.INIT and self._due_ns is None

    def _vacate(self) -> list[ClientEffect]:
        """The port loses its address, where it has one."""
        if self.lease is None:
            return []
        self.lease = self.renew_ns = self.rebind_ns = self.expiry_ns = None
        return [Vacate()]

    def _new_exchange(self, now: int) -> None:
        self._xid = self._xids.getrandbits(32)
        self._sent = 0
        self._began_ns = self._asked_ns = now
        self._spare = None
        self._refused.clear()

    def _decline(self, address: int, server: int, now: int) -> Broadcast:
        self._new_exchange(now)
        return Broadcast(questions.decline(self.settings, self._xid, address, server))

    def _secs(self, now: int) -> int:
        return (now - self._began_ns) // SECOND_NS

    def _asked_for(self) -> Lease:
        """The lease that the REQUEST under way is about."""
        sources = {ClientState.REQUESTING: self._offer, ClientState.REBOOTING: self._wanted}
        lease = sources.get(self.state, self.lease)
        assert lease is not None
        return lease
