"""Unit tests of the Python client."""
