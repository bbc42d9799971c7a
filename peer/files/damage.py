"""Search for damage: every piece of a content on this device is read and compared with its digest.

Not here: the check of a share whose files were touched, which ends at the first difference (see
peer.files.sharing).
"""

from __future__ import annotations

from collections.abc import Callable

from common.manifest import Manifest, StreamLayout
from peer.files.hashing import hash_pieces, never_cancelled
from peer.files.link_targets import LinkRoot
from peer.files.open_files import HandleCache
from peer.files.sharing import Progress, location_of, no_progress
from peer.files.source_files import SourceFiles


def damaged_pieces(
    manifest: Manifest,
    path: str,
    links: tuple[LinkRoot, ...] = (),
    *,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> list[int]:
    """Return the pieces at ``path`` whose bytes do not have their digests.

    Raises `ContentChanged` if a file is missing, has another size, or changes meanwhile,
    `TooManyOpenFiles`, `IOFailed`, `Cancelled`.
    """
    place = location_of(manifest, path, links)
    layout = StreamLayout(manifest.entries, manifest.piece_length)
    handles = HandleCache()
    files = SourceFiles(place, manifest.entries, layout, handles)
    damaged: list[int] = []
    done = 0

    def in_order(index: int, view: memoryview, found: bytes | None) -> None:
        nonlocal done
        if found != manifest.piece_digest(index):
            damaged.append(index)
        done += len(view)
        on_progress(done)

    try:
        hash_pieces(
            range(manifest.piece_count),
            layout.span,
            files.read_into,
            manifest.algorithm,
            in_order,
            cancelled=cancelled,
        )
        files.check()
    finally:
        handles.close()
    return damaged


def damaged_files(manifest: Manifest, pieces: list[int]) -> list[str]:
    """Return the paths, within the content, of the files that ``pieces`` belong to.

    A content that is a file alone has none within it.
    """
    layout = StreamLayout(manifest.entries, manifest.piece_length)
    entries = {
        segment.entry for index in pieces for segment in layout.stretch(*manifest.piece_span(index))
    }
    return [path for entry in sorted(entries) if (path := manifest.entries[entry].path)]
