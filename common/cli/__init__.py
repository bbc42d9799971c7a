"""Command line parts of both programs: command groups and shell completion."""
