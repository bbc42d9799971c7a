"""Trackers under load: its contents, clients of our own, and the rows of the table."""
