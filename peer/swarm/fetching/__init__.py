"""State machine of a download. Pure: events in, effects out."""
