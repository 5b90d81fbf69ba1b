"""Floor 3: the gateway. One walk through the rooms; `bridge.ports` is the only input and output."""
