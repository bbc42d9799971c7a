"""Unit tests of the full-screen view."""
