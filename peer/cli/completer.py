"""Completion at the prompt of `shell`: commands, groups, names and paths."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from common.names import printable
from peer.cli.command import Commands
from peer.cli.console import Console

NOT_HERE = ("shell",)  # commands that make no sense at the prompt


class Completer:
    """Completes commands, then groups, then names in that group or paths on the disk.

    ``line`` returns the text before the cursor.
    """

    def __init__(self, console: Console, root: Commands, line: Callable[[], str]) -> None:
        self._console = console
        self._root = root
        self._line = line
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """The ``state``-th completion of ``text``, as readline asks for it."""
        if state == 0:
            try:
                self._found = self._for_readline(self._line(), text)
            except Exception:  # readline would print it into the middle of the line
                self._found = []
        return self._found[state] if state < len(self._found) else None

    def _for_readline(self, line: str, text: str) -> list[str]:
        # Readline ends words at spaces, quoted or not, and replaces the last part alone.
        kept = line[_last_word_at(line) : len(line) - len(text)]
        return [
            found.removeprefix(kept) for found in self.completions(line) if found.startswith(kept)
        ]

    def completions(self, line: str) -> list[str]:
        """The completions of the last word of ``line``, quoted where needed."""
        from common.cli.completion import PATHS, completions

        at = _last_word_at(line)
        before, typed = shlex.split(line[:at]), _unquoted(line[at:])
        if not before:
            names = [name for name in self._root.commands if name not in NOT_HERE]
            if "_" in typed:
                names = [name.replace("-", "_") for name in names]
            return [f"{name} " for name in (*names, "help", "quit") if name.startswith(typed)]
        arguments = ["--home", str(self._console.home), *before]
        items = completions(self._root, arguments, typed)
        if any(item.type in PATHS for item in items):
            return _paths(typed)
        return [f"{shlex.quote(item.value)} " for item in items]


def _last_word_at(line: str) -> int:
    at, quote = 0, ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            at = place + 1
    return at


def _unquoted(text: str) -> str:
    try:
        return "".join(shlex.split(text))
    except ValueError:  # a quotation that is still open
        return text.lstrip("'\"")


def _harmless(name: str) -> bool:
    return printable(name) == name


def _paths(typed: str) -> list[str]:
    folder, slash, beginning = typed.rpartition("/")
    where = os.path.expanduser(folder + slash) or "."
    head = "/".join(map(_quoted_part, (folder + slash).split("/")))
    return [
        f"{head}{shlex.quote(name)}{_ending(os.path.join(where, name))}"
        for name in sorted(os.listdir(where))
        if name.startswith(beginning) and _harmless(name)
        if beginning.startswith(".") or not name.startswith(".")
    ]


def _quoted_part(part: str) -> str:
    # What is quoted is not expanded: a leading ~ has to stay outside.
    return part if part.startswith("~") or not part else shlex.quote(part)


def _ending(path: str) -> str:
    return "/" if os.path.isdir(path) else " "
