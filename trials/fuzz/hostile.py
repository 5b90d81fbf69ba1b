"""Common to all fuzz targets: the target itself, spoiled bytes, and the report that something broke."""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trials.fuzz.choices import Choices, is_spent

_MEMORY = "/dev/shm"


class Failure(AssertionError):
    """Something that must hold did not."""


class Broken(Exception):
    """An input did it; the message has what is needed to look at it, the cause is what went wrong."""


class Target(NamedTuple):
    """One kind of hostile input.

    `episode` makes a fresh state, feeds it inputs drawn from the generator until that is spent, at most `most`, and
    says how many there were; `Broken` where one broke something. `is_raw`: an episode is one file or one stream, given
    as it is. `samples`: inputs to begin from where it is; `words`: what may stand in them; `compiled`: whether compiled
    code gets its bytes.
    """

    name: str
    episode: Callable[[random.Random, int], int]
    is_raw: bool = False
    samples: Callable[[], Sequence[bytes]] = lambda: ()
    words: Sequence[bytes] = ()
    compiled: bool = False


def run(target: Target, seconds: float, seed: int, most: int = 1 << 62, at_once: int = 2000) -> int:
    """Episodes without any guidance until the time is over, at most `most` inputs; how many there were."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    number = 0
    samples = target.samples() if target.is_raw else ()
    while number < most:
        turn = rng.getrandbits(32)
        try:
            if target.is_raw:
                data = (
                    reworded(rng.choice(samples), target.words, rng) if samples else rng.randbytes(rng.randrange(200))
                )
                number += replay(target, data)
            else:
                number += target.episode(random.Random(turn), min(at_once, most - number))
        except Broken as error:
            raise Broken(f"turn {turn}: {error}") from error.__cause__
        except Exception as error:
            raise Broken(f"input {number} and following, turn {turn}") from error
        if time.monotonic() > end:
            break
    return number


def replay(target: Target, data: bytes, most: int = 10_000) -> int:
    """One input of the corpus, or of a guided fuzzer."""
    try:
        return target.episode(Choices(data), most)
    except Broken as error:
        raise Broken(f"{data.hex()}: {error}") from error.__cause__
    except Exception as error:
        raise Broken(data.hex()) from error


def raw(rng: random.Random) -> bytes:
    """The input of a raw target."""
    return rng.rest() if isinstance(rng, Choices) else rng.randbytes(rng.randrange(200))


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the files of an input, in memory where that can be had: they are many."""
    return tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


def goes_on(rng: random.Random, number: int, most: int) -> bool:
    """Whether an episode has another input to come."""
    return number < most and not is_spent(rng)


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert or repeat bytes."""
    data = bytearray(frame)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 8))):
        kind = rng.randrange(5)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data += data[at : at + 16]
    return bytes(data)


_WORD = re.compile(rb"[\w./:-]+|\"[^\"\n]*\"|[^\w\s]")


def reworded(text: bytes, words: Sequence[bytes], rng: random.Random) -> bytes:
    """Words, lines and bytes changed for others: what a text that is nearly right looks like."""
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        kind = rng.randrange(4)
        if kind == 0 and words:
            found = list(_WORD.finditer(text))
            if found:
                at = rng.choice(found)
                text = text[: at.start()] + rng.choice(words) + text[at.end() :]
        elif kind < 3:
            lines = text.split(b"\n")
            at_line = rng.randrange(len(lines))
            if kind == 1:
                lines.insert(rng.randrange(len(lines) + 1), lines[at_line])
            else:
                del lines[at_line]
            text = b"\n".join(lines)
        elif words:
            at_byte = rng.randrange(len(text) + 1)
            text = text[:at_byte] + rng.choice(words) + text[at_byte:]
    return mutated(text, rng) if rng.random() < 0.3 else text
