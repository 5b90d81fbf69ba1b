"""Floods against a gateway that serves others meanwhile: `python -m trials.floods`."""
