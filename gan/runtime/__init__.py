"""Devices, processes, determinism, memory, files and profiling."""
