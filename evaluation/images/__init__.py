"""Images: reading and checking them, image sets, feature extraction and its cache."""
