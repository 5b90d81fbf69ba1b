"""The walk: bytes and `now` come in, effects go out. Read `gateway` first, then `decision`.

No module here reads a clock, a file or the environment, opens a socket or draws a random number of its own, so the
daemon, `replay` and the tests drive the same object.
"""
