"""Floor 3: the gateway. `bridge.walk` decides about frames, `bridge.ports` reads and writes them, the other rooms are
the process around both. README.md says what lies where and which room may import which.
"""
