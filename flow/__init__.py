"""Floor 2: the flows that pass the gateway, as they were decided."""
