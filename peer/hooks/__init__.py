"""Hooks: commands of this device's user that the peer runs at events."""
