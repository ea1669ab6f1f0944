"""Isolation, processes, progress bars and files."""
