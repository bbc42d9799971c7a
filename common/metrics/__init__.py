"""Metrics of both programs: tables of families, counts, and their text for Prometheus."""
