"""Measures GANs and classifiers; the only package of `gan` that calls the metrics in `evaluation`.

The networks, the training and the metrics can therefore be used and changed independently.
"""
