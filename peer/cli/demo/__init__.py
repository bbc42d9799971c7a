"""The ``demo`` command: a whole swarm on one machine."""
