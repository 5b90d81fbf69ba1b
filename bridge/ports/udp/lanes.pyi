from collections.abc import Iterable

from bridge.ports.burst import CompiledBursts, Outlet
from bridge.ports.bursts import Queued
from tunnel.burst import CompiledCipher
from tunnel.endpoint import Opened
from tunnel.primitives import TransportKey
from wire.gso import GsoHeader

Received = tuple[int, int, bool]
Strange = tuple[bytes, bytes, bytes, int]
Unsent = tuple[int, bytes, int]

class Lanes(Outlet):
    now_ns: int
    def __init__(self, cipher: CompiledCipher) -> None: ...
    def join(self, bursts: CompiledBursts) -> None: ...
    def open_lane(
        self,
        port: int,
        memory: memoryview,
        key: TransportKey,
        remote: int,
        mtu_bytes: int,
        fd: int,
        is_together: bool,
        tos_level: int,
        tos_kind: int,
        name: bytes,
        info: tuple[int, int, bytes] | None,
    ) -> None: ...
    def close_lane(self, port: int) -> None: ...
    def set_inbound(self, sessions: Iterable[tuple[int, memoryview, TransportKey, int, bytes, bytes]]) -> None: ...
    def write(self, port: int, frame: bytes | bytearray, gso: GsoHeader | None, now: int) -> bool: ...
    def send(self) -> None: ...
    def receive(self, fd: int, limit: int, now: int) -> None: ...
    def sent(self) -> list[tuple[int, int, int]]: ...
    def socket_results(self) -> tuple[list[Strange], dict[int, tuple[bytes, bytes]]]: ...
    def burst_results(self) -> tuple[list[Opened], list[Queued], list[Received], tuple[int, int, int, int]]: ...
    def take_unsent(self) -> list[Unsent]: ...
