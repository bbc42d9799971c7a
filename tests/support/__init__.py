"""Harnesses, fakes, real processes and attackers that tests share."""
