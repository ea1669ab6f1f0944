"""Bridge to `evaluation`: besides the commands the only package of `gan` that imports it.

Below it, networks and runs know nothing of metrics, so that either half can be used and changed without the other.
"""
