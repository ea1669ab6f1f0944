"""Check of a GPU by tools/gpu_check.py: steps, their execution in processes of their own, goals."""
