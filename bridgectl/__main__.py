"""`python -m bridgectl`."""

from __future__ import annotations

from bridgectl.main import main

main()
