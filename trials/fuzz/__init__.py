"""Hostile input to every reader of foreign bytes: `python -m trials.fuzz`."""
