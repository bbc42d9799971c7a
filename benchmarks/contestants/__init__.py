"""The contestants, a module each."""
