"""Ratios that the book promises, measured: `python -m benchmarks` (or `make bench`)."""
