"""Torrent file (BEP 3, version 1) for all BitTorrent contestants.

Why: all of them move the same torrent, whichever of them are installed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

Bencodable = int | bytes | str | list["Bencodable"] | dict[str, "Bencodable"]


def make_torrent(source: Path, target: Path, *, announce: str, piece_length: int) -> None:
    """Write the torrent of `source` (a file or a folder) to `target`."""
    info: dict[str, Bencodable] = {"name": source.name, "piece length": piece_length}
    if source.is_dir():
        files = sorted(Path(folder, name) for folder, _, names in os.walk(source) for name in names)
        info["files"] = [
            {"length": path.stat().st_size, "path": list(path.relative_to(source).parts)}
            for path in files
        ]
    else:
        files = [source]
        info["length"] = source.stat().st_size
    info["pieces"] = b"".join(
        hashlib.sha1(piece, usedforsecurity=False).digest()
        for piece in _pieces(files, piece_length)
    )
    target.write_bytes(bencode({"announce": announce, "info": info}))


def bencode(value: Bencodable) -> bytes:
    """Return the BEP 3 encoding; text becomes UTF-8."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%b" % (len(value), value)
        case str():
            return bencode(value.encode())
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            pairs = sorted((key.encode(), item) for key, item in value.items())
            return b"d" + b"".join(bencode(key) + bencode(item) for key, item in pairs) + b"e"


def _pieces(files: list[Path], piece_length: int) -> Iterator[bytes]:
    piece = bytearray()
    for path in files:
        with path.open("rb") as data:
            while chunk := data.read(piece_length - len(piece)):
                piece += chunk
                if len(piece) == piece_length:
                    yield bytes(piece)
                    piece.clear()
    if piece:
        yield bytes(piece)
