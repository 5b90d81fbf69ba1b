"""The benchmark: `python -m trials.bench` measures this version beside others."""
