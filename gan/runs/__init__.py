"""Runs on disk: folder, checkpoints, logs, best checkpoint."""
