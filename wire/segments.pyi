from collections.abc import Sequence

from wire.coalesce import FrameWithGso
from wire.gso import GsoHeader

def segment(packet: bytes | bytearray | memoryview, gso: GsoHeader) -> list[bytes]: ...
def coalesce(packets: Sequence[bytes]) -> list[FrameWithGso]: ...
