"""Launches several runs as local processes or as Slurm jobs."""
