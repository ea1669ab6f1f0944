"""Reproduction of the SRN paper's tables and figures: printed numbers, runs they need, and pages with our values."""
