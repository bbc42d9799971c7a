"""Random password for an account whose user forgot the own one: easy to read out and to type."""

from __future__ import annotations

import secrets

# Without 0, O, 1, l and i, which people mix up: 16 of 31 are 79 bits.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_CHARACTERS = 16


def random_password() -> str:
    """Return a fresh password."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))
