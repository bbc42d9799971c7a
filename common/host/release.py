"""Release of Mini-Torrent, the one place of its number; ``setup.cfg`` reads it from here.

Why no ``importlib.metadata``: it is slow to load, and a command line must answer at once.
"""

from __future__ import annotations

RELEASE = "0.1.0"
