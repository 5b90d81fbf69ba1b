"""Floor 5: what is measured, as code."""
