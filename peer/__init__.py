"""The peer: one device's part of the swarm, and the command line that drives it."""
