"""Metrics of a tracker: their families, and how they are read from its parts."""
