"""Steps that a file system may not know, and whose lack costs no content.

Owns the decision that an error is such a lack, and its one line in the log. Which other step does
instead is the caller's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common import names
from common.host.atomic_files import is_refusal

log = logging.getLogger(__name__)

TOLD_MAX = 1000  # lines; a folder is told of again after that many others
_told: set[tuple[str, str]] = set()


def without(folder: str, step: str, error: OSError, instead: str) -> None:
    """Log, once for each ``folder``, that its file system does not know ``step``."""
    if (folder, step) in _told:
        return
    if len(_told) >= TOLD_MAX:
        _told.clear()
    _told.add((folder, step))
    reason = os.strerror(error.errno) if error.errno else str(error)
    shown = names.printable(os.fsencode(folder).decode("utf-8", "backslashreplace"))
    log.warning("%s: its file system does not %s (%s): %s", shown, step, reason, instead)


@contextmanager
def optional(folder: str, step: str, instead: str) -> Iterator[None]:
    """Go on after a step within that the file system of ``folder`` does not know.

    Raises `OSError` for a step that it knows, and that failed.
    """
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
        without(folder, step, error, instead)
