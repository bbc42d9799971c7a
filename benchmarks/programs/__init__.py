"""Helper programs of the contestants, each run as a process."""
