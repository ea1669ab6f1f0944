"""Neural Divergence: critics trained from scratch to distinguish generated images from real test images."""
