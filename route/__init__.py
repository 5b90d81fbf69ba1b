"""Floor 1: the target of a destination. One longest-prefix table, built whole and swapped whole."""
