"""The three standard streams, which a command is handed and must not trust.

Owns which texts they take in any locale (`speak_any_locale`), what they are when they are closed
(`open_closed_streams`), and output that cannot be delivered (`abandon_output`), as on a full disk
or after ``| head``, and the end of a program (`leave`).
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn


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


_NEAREST = {"…": "...", "─": "-", "━": "-", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-"}


def speak_any_locale() -> None:
    """Let standard output and error take every text, whatever the encoding of the locale.

    A character that it lacks becomes the nearest plain one, or a question mark. Standard input
    keeps bytes that are no text in it as the os module would; the code that reads them refuses
    them.
    """
    codecs.register_error("mini-torrent", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mini-torrent")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def text_of(word: str) -> str:
    """A word of the command line that the locale cannot read, as UTF-8 if it is that."""
    try:
        word.encode()
    except UnicodeEncodeError:
        with suppress(UnicodeError):
            return os.fsencode(word).decode("utf-8")
    return word


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_NEAREST.get(letter, "?") for letter in letters), error.end


def leave(code: int) -> NoReturn:
    """End the process with exit ``code``, once everything printed is written.

    Why not ``sys.exit``: the interpreter's own end takes longer than most commands.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:  # Python has none for a stream that was closed
                stream.flush()
    os._exit(code)


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
