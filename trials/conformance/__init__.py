"""The checklist, row by row: `python -m trials.conformance`."""
