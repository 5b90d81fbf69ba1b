from collections.abc import Sequence

from wire.coalesce import Frame
from wire.offload import Offload

def segment(packet: bytes | bytearray | memoryview, offload: Offload) -> list[bytes]: ...
def coalesce(packets: Sequence[bytes]) -> list[Frame]: ...
