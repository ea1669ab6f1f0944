"""GANs and classifiers with normalized weights: networks, training, runs and commands."""
