"""Training of generative adversarial networks around weight normalization."""
