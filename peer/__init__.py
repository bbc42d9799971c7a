"""The peer: the daemon of a device, and everything that a user does with it."""
