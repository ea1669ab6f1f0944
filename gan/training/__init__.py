"""Training: one iteration, the loops around it and the state that they change."""
