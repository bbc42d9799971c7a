"""Metrics of a peer: their families, and how they are read from its parts."""
