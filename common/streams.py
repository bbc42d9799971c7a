"""The three standard streams, which a command is handed and must not trust.

Owns what they are when they are closed (`open_closed_streams`) and when nobody takes what is
written any more (`abandon_output`), such as on a full disk or after ``| head``.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def open_closed_streams() -> None:
    """Put ``/dev/null`` where the caller closed a standard stream.

    Otherwise the next file that we open takes its number, and what a library prints in its
    distress ends in a database; and Python has ``None`` for the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            assert nothing == number, "the lowest free number is always given"
            os.set_inheritable(nothing, True)
            setattr(sys, name, os.fdopen(nothing, "w" if number else "r", closefd=False))


def abandon_output() -> None:
    """Forget what standard output could not take, so that it cannot fail once more.

    Python writes what is left at the exit, and a failure there replaces our exit code by 120.
    """
    with suppress(ValueError):  # closed by ourselves
        try:
            sys.stdout.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)
