"""Optional steps: a file system may lack them, and no content is lost without them.

Owns: the decision that an error means such a lack, and its one line in the log. Not here: the step
that replaces it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common import names
from common.host.atomic_files import is_refusal

log = logging.getLogger(__name__)

TOLD_MAX = 1000  # lines; a folder is logged again after that many others
_told: set[tuple[str, str]] = set()


def without(folder: str, step: str, error: OSError, instead: str) -> None:
    """Log, once for each ``folder``, that its file system lacks ``step``."""
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
    """Continue after a step within the block that the file system of ``folder`` lacks.

    Raises `OSError` for a step that it has, and that failed.
    """
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
        without(folder, step, error, instead)
