"""Manifest of files on the disk: made by digesting them, and verified by digesting again.

Not here: the rule of what may be shared (see peer.files.scanning), names, groups and records of
shares (see peer.shares).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from common import limits
from common.digests import Algorithm
from common.errors import ConfigError
from common.manifest import (
    MANIFEST_FORMAT,
    TIMED_FORMAT,
    Entry,
    EntryKind,
    Manifest,
    StreamLayout,
    count_pieces,
    piece_length_for,
)
from common.names import quoted
from common.units import size_text
from peer.files import paths
from peer.files.digesting import Progress as Progress
from peer.files.digesting import digest_all
from peer.files.digesting import no_progress as no_progress
from peer.files.errors import ContentChanged, OtherContent
from peer.files.fingerprint import Fingerprint, SharedLocation, settle
from peer.files.folder_identity import identity_of
from peer.files.hashing import never_cancelled
from peer.files.link_targets import EntryFolders, LinkRoot
from peer.files.open_files import HandleCache
from peer.files.scanning import Scan, scan
from peer.files.source_files import SourceFiles, why_unread
from peer.native.folder import Status, compiled_folder


class Digested(NamedTuple):
    manifest: Manifest
    place: SharedLocation


# -- digesting ----------------------------------------------------------------------------------


def digest(
    path: str,
    algorithm: Algorithm = Algorithm.BLAKE3,
    piece_length: int | None = None,
    *,
    times: bool = True,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> Digested:
    """The manifest of the files at ``path``, and their fingerprints.

    ``piece_length`` in bytes; by default it depends on the size. Raises the errors of `scan`,
    `ContentChanged` if a file changes meanwhile, `Cancelled`.
    """
    return digest_scanned(
        scan(path),
        algorithm,
        piece_length,
        times=times,
        on_progress=on_progress,
        cancelled=cancelled,
        threads=threads,
    )


def digest_scanned(
    scanned: Scan,
    algorithm: Algorithm = Algorithm.BLAKE3,
    piece_length: int | None = None,
    *,
    times: bool = True,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> Digested:
    """`digest` for files that were scanned already. ``times``: whether the manifest has them."""
    size = scanned.size
    length = checked_piece_length(piece_length, size)
    settle(scanned.place.fingerprints)
    pieces = bytearray()

    def on_piece(_: int, found: bytes) -> None:
        pieces.extend(found)

    layout = StreamLayout(scanned.entries, length)
    handles = HandleCache()
    files = SourceFiles(scanned.place, scanned.entries, layout, handles)
    try:
        whole = digest_all(
            range(count_pieces(size, length)),
            layout.span,
            files,
            algorithm,
            on_piece,
            on_progress=on_progress,
            threads=threads,
            cancelled=cancelled,
        )
        files.check()
    finally:
        handles.close()
    kept = scanned.times if times else ()
    manifest = Manifest(
        TIMED_FORMAT if kept else MANIFEST_FORMAT,
        algorithm,
        length,
        size,
        whole,
        bytes(pieces),
        scanned.entries,
        kept,
    )
    return Digested(manifest, scanned.place)


def checked_piece_length(chosen: int | None, size: int) -> int:
    """The piece length for ``size`` bytes: as it was chosen, or by default.

    Raises `ConfigError` if it is invalid, or too short for that many bytes."""
    length = chosen or piece_length_for(size)
    if not limits.PIECE_LENGTH_MIN <= length <= limits.PIECE_LENGTH_MAX or length & (length - 1):
        raise ConfigError(
            f"a piece cannot have {length} bytes",
            f"choose a power of two from {limits.PIECE_LENGTH_MIN} to {limits.PIECE_LENGTH_MAX}",
        )
    if count_pieces(size, length) > limits.PIECES_MAX:
        raise ConfigError(
            f"{size_text(size)} are more than {limits.PIECES_MAX:,} pieces of {size_text(length)}",
            "choose larger pieces" if length < limits.PIECE_LENGTH_MAX else None,
        )
    return length


# -- looking again ------------------------------------------------------------------------------


def recheck(
    manifest: Manifest,
    path: str,
    links: tuple[LinkRoot, ...] = (),
    *,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> SharedLocation:
    """Digest the files at ``path`` (absolute, without links) again; return their place.

    ``links``: the folders that may hold targets of links in it.

    Files that were added to a folder are ignored. Raises `ContentChanged` if the content differs,
    `TooManyOpenFiles`, `IOFailed`, `Cancelled`.
    """
    return verify(
        manifest,
        location_of(manifest, path, links),
        on_progress=on_progress,
        cancelled=cancelled,
        threads=threads,
    )


def verify(
    manifest: Manifest,
    place: SharedLocation,
    *,
    whole: bool = False,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> SharedLocation:
    """`recheck` for files whose entries are known to be those of ``manifest``.

    Raises `OtherContent` if the bytes differ and no file was changed meanwhile. ``whole``: verify
    the digest of the whole too, for a manifest that another member made.
    """
    path = place.path
    settle(place.fingerprints)
    layout = StreamLayout(manifest.entries, manifest.piece_length)
    handles = HandleCache()
    files = SourceFiles(place, manifest.entries, layout, handles)

    def on_piece(index: int, found: bytes) -> None:
        if found != manifest.piece_digest(index):
            raise OtherContent(f"{quoted(path)} was changed")

    try:
        files.check()
        stream = digest_all(
            range(manifest.piece_count),
            layout.span,
            files,
            manifest.algorithm,
            on_piece,
            whole=whole,
            on_progress=on_progress,
            threads=threads,
            cancelled=cancelled,
        )
        files.check()
    finally:
        handles.close()
    if whole and stream != manifest.digest:
        raise OtherContent(f"{quoted(path)} is not what the manifest says of the whole")
    return place


def location_of(
    manifest: Manifest,
    path: str,
    links: tuple[LinkRoot, ...] = (),
    *,
    selected: Container[int] | None = None,
    seen: Sequence[Status | None] = (),
) -> SharedLocation:
    """The fingerprints of the entries of ``manifest`` at ``path``. Nothing is read.

    ``selected``: numbers of the entries to look at; the others have no fingerprint. ``seen``: the
    status of entries that were looked at just now, at this place or before its renaming.

    Raises `ContentChanged` if one is missing or has another size, `TooManyOpenFiles` for a
    transient shortage, `IOFailed`.
    """
    found: list[Fingerprint | None] = []
    read_path = path
    try:
        parent, name = os.path.split(path)
        root = path if manifest.is_folder else parent
        root_fd = paths.open_real_folder(root, path_only=True)
        try:
            if not seen and manifest.is_folder and (table := compiled_folder(manifest.entries)):
                seen = table.look(root_fd)
            with EntryFolders(root, root_fd, [link.path for link in links]) as folders:
                for number, entry in enumerate(manifest.entries):
                    if selected is not None and number not in selected:
                        found.append(None)
                        continue
                    status = seen[number] if seen else None
                    if status is not None and _is_file_of(status, entry):
                        found.append(Fingerprint(*status[:4]))
                        continue
                    read_path = os.path.join(path, entry.path) if entry.path else path
                    there = folders.status(entry.path.split("/") if entry.path else [name])
                    found.append(_fingerprint_of(there, entry, read_path))
        finally:
            os.close(root_fd)
    except OSError as error:
        raise why_unread(error, read_path) from error
    settle(found)
    return SharedLocation(os.fsencode(path), tuple(found), identity_of(path), links)


def _is_file_of(status: Status, entry: Entry) -> bool:
    is_file = stat.S_ISREG(status[-1]) and entry.kind is not EntryKind.FOLDER
    return is_file and status[0] == entry.size


def _fingerprint_of(status: os.stat_result, entry: Entry, path: str) -> Fingerprint | None:
    if entry.kind is EntryKind.FOLDER:
        is_it = stat.S_ISDIR(status.st_mode)
    else:
        is_it = stat.S_ISREG(status.st_mode) and status.st_size == entry.size
    if not is_it:
        raise ContentChanged(f"{quoted(path)} was changed")
    return None if entry.kind is EntryKind.FOLDER else Fingerprint.of(status)
