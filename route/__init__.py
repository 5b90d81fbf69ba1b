"""Floor 1: where a destination goes. One longest-prefix table, built whole and swapped whole."""
