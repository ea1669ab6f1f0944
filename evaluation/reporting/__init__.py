"""Reports, plots, tables and comparisons of evaluations."""
