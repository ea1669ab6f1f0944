"""Neural Divergence: critics trained from scratch to tell generated images from real test images."""
