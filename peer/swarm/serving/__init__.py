"""State machine of serving. Pure: events in, effects out."""
