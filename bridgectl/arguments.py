"""The order of words and options on the command line.

An option may stand before, between or behind the command words: `bridgectl -j route get IP` is `bridgectl route get IP
-j`. click wants each option behind the word that declares it, so `ordered` moves the words to the front and keeps
everything else in its order. It has to know which options take a value; a test compares `VALUED` with the declarations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Words that follow a command word. The bare command word means the first of them.
WORDS: Mapping[str, tuple[str, ...]] = {
    "arp": ("show", "flush", "add", "del", "probe"),
    "alias": ("show", "flush"),
    "route": ("show", "get", "diff"),
    "dhcp": ("show", "renew", "release"),
}

VALUED = frozenset(
    {
        "-c",
        "--config",
        "--socket",
        "--port",
        "--inside",
        "--hex",
        "--pcap",
        "--frame",
        "-w",
        "--write",
        "--count",
        "--filter",
        "--in",
        "--out",
        "--linger",
        "--seed",
        "--megabytes",
        "--lan",
        "-o",
        "--output",
        "--peer",
        "--for-peer",
        "--endpoint",
        "--wait",
    }
)
WATCH = "--watch"
WATCH_SECONDS = "2"
_HELP = frozenset({"-h", "--help"})


def ordered(tokens: Sequence[str], *, complete: bool = True) -> list[str]:
    """The same command line with its command words first. `--watch` without a number gets its default. A `complete`
    line with a bare command word gets the second word that it means."""
    words: list[str] = []
    rest: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token == "--":
            rest += tokens[at - 1 :]
            break
        if token == WATCH:
            seconds = WATCH_SECONDS
            if at < len(tokens) and _is_number(tokens[at]):
                seconds = tokens[at]
                at += 1
            rest.append(f"{WATCH}={seconds}")
        elif token.startswith("-") and token != "-":
            rest.append(token)
            if _takes_next(token) and at < len(tokens):
                rest.append(tokens[at])
                at += 1
        elif not words or (len(words) == 1 and token in WORDS.get(words[0], ()) and not _has_argument(rest)):
            words.append(token)
        else:
            rest.append(token)
    if complete and len(words) == 1 and words[0] in WORDS and not _HELP.intersection(rest) and not _has_argument(rest):
        words.append(WORDS[words[0]][0])
    return words + rest


def _takes_next(option: str) -> bool:
    """True where the option's value is the next token: `-c FILE`, `-jc FILE`, `--port tap0`, not `--port=tap0`."""
    if option.startswith("--"):
        return option in VALUED
    for index, letter in enumerate(option[1:], start=1):
        if f"-{letter}" in VALUED:
            return index == len(option) - 1
    return False


def _has_argument(rest: Sequence[str]) -> bool:
    """True where a plain argument is among the tokens: words end at the first of them."""
    expects_value = False
    for token in rest:
        if expects_value:
            expects_value = False
        elif not token.startswith("-") or token == "-":
            return True
        else:
            expects_value = _takes_next(token)
    return False


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
