"""`bridgectl run`: the gateway process from its configuration to its end."""
