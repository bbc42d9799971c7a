"""Shares of this device: files that it digested, offered to a group, and serves."""
