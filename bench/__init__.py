"""Floor 4: what is measured, as code."""
