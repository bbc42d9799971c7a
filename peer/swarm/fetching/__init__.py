"""Pure state machine of a download: events in, effects out."""
