"""Statistics of features: moments, Fréchet distance, classes, pairs, percentiles."""
