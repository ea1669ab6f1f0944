"""Benchmarks of tools/benchmark.py, one module per subject, and the modules they share."""
