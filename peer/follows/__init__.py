"""Follows: groups whose shares this device fetches by itself, and copies on other devices."""
