"""Decisions of the tracker. Pure: no socket, clock, file or random source of its own."""
