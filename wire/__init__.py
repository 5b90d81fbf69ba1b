"""Floor 0: formats, checksums, units and drop reasons. No policy, no state, no input or output."""
