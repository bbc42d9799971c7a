"""Compiled data path of Mini-Torrent: the place of its shared object. Nothing is loaded here."""

from pathlib import Path

LIBRARY = Path(__file__).resolve().parent / "libmini_torrent_native.so"
