"""Training: the computations of an iteration, the training loops and their state."""
