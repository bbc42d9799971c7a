"""Control socket: commands from the command line to its own running peer."""
