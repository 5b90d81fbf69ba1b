"""Capture filters in tcpdump's language, compiled and run by libpcap itself.

The language is pcap-filter(7). Only `pcap_open_dead`, `pcap_compile` and `pcap_offline_filter` are bound.
"""

from __future__ import annotations

import ctypes
import os

_LIBRARIES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
DLT_ETHERNET, DLT_RAW = 1, 12  # of Linux
_SNAP_BYTES = 262_144
_NETMASK_UNKNOWN = 0xFFFFFFFF


class BadFilter(ValueError):
    """The expression cannot be compiled."""


class NoLibrary(RuntimeError):
    """There is no libpcap to compile it."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class _PacketHeader(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


class Filter:
    """A compiled expression. `link`: `DLT_ETHERNET` or `DLT_RAW`.

    Raises `BadFilter` for an expression that libpcap refuses, `NoLibrary` where there is no libpcap.
    """

    def __init__(self, expression: str, link: int) -> None:
        pcap = _library()
        handle = pcap.pcap_open_dead(link, _SNAP_BYTES)
        self._program = _Program()
        try:
            text = os.fsencode(expression)  # as the shell gave it, UTF-8 or not
            failed = pcap.pcap_compile(handle, ctypes.byref(self._program), text, 1, _NETMASK_UNKNOWN)
            if failed:
                says = pcap.pcap_geterr(handle).decode(errors="replace")
                raise BadFilter(f"the filter {expression!r}: {says}")
        finally:
            pcap.pcap_close(handle)
        self._pcap = pcap

    def matches(self, frame: bytes) -> bool:
        """True where the expression holds for the frame."""
        header = _PacketHeader(0, 0, len(frame), len(frame))
        return bool(self._pcap.pcap_offline_filter(ctypes.byref(self._program), ctypes.byref(header), frame))

    def close(self) -> None:
        """Free the program; `matches` must not be called any more."""
        self._pcap.pcap_freecode(ctypes.byref(self._program))


def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError:
            continue
        pcap.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        pcap.pcap_geterr.argtypes = (ctypes.c_void_p,)
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_close.argtypes = (ctypes.c_void_p,)
        pcap.pcap_close.restype = None
        pcap.pcap_offline_filter.argtypes = (
            ctypes.POINTER(_Program),
            ctypes.POINTER(_PacketHeader),
            ctypes.c_char_p,
        )
        pcap.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        pcap.pcap_freecode.restype = None
        return pcap
    raise NoLibrary("--filter needs libpcap (Debian and Ubuntu: apt install libpcap0.8)")
