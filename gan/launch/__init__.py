"""Several runs: as local processes or as Slurm jobs."""
