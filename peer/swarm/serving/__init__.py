"""Pure state machine of serving: events in, effects out."""
