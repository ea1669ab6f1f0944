"""Processes, determinism, memory, files and profiling."""
