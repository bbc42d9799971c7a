"""Client of the tracker: connection, replica of the groups, tickets and lease."""
