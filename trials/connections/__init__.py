"""New TCP connections through the gateway, measured alone: `python -m trials.connections`."""
