"""Runtime support: isolation, processes, progress bars, files, machine records."""
