"""Errors of the command line: their text, hint, JSON form and exit code.

Owns the translation of every exception into one error, and the words that a command was typed with.
Not here: hints that name what was meant (see peer.cli.suggestions).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import click

from common.cli.command_group import WrongUsage
from common.errors import MiniTorrentError, exit_code_of
from common.hints import PROGRAM, quoted_line
from common.messages.refusals import Code
from common.names import printable
from peer.cli.json_form import json_text

SENTENCE_MAX = 400  # characters
INTERRUPTED = 130
TYPED = "mini-torrent.typed"  # in the meta of a context: the words behind the command's name
PUBLIC_ARGUMENTS = {"login": 1, "create-user": 1, "change-password": 0, "join": 0}
"""Number of leading arguments of a command that cannot be a password or an invitation.

All arguments of the other commands are public.
"""


@dataclass(frozen=True, slots=True)
class CliError:
    """An error as the user sees it."""

    code: str
    message: str
    hint: str | None
    exit_code: int

    def show(self, *, as_json: bool) -> None:
        """On standard error: ``error:`` and ``hint:`` lines, or one JSON object."""
        if as_json:
            error = {"code": self.code, "message": self.message}
            if self.hint:
                error["hint"] = self.hint
            text = json_text({"error": error})
        else:
            text = f"error: {printable(self.message)}"
            if self.hint:
                text += f"\nhint: {printable(self.hint)}"
        print(text, file=sys.stderr, flush=True)


def show_traceback(error: BaseException) -> None:
    """Print the traceback of ``error`` on standard error, indented.

    Why: it may contain text of others, which must not look like a line of ours."""
    import traceback

    for part in traceback.format_exception(error):
        for row in part.rstrip("\n").split("\n"):
            print(f"  {printable(row)}", file=sys.stderr)


def cli_error(error: BaseException, hinted: Callable[[str], str]) -> CliError:
    """The error that the user sees for ``error``; ``hinted`` completes its hint's command."""
    found = _translated(error)
    return replace(found, hint=hinted(found.hint)) if found.hint else found


def _translated(error: BaseException) -> CliError:
    match error:
        case MiniTorrentError():
            return CliError(error.code, error.message, error.hint, exit_code_of(error))
        case click.UsageError():
            return _usage_error(error)
        case click.ClickException():
            return CliError(Code.USAGE, _sentence(error.format_message()), None, error.exit_code)
        case KeyboardInterrupt() | click.Abort():
            return CliError(Code.CANCELLED, "interrupted", None, INTERRUPTED)
        case OSError():
            what = f"{error.filename}: " if error.filename else ""
            return CliError(Code.STORAGE, f"{what}{error.strerror or error}", None, 1)
    return CliError(
        Code.INTERNAL,
        f"this is a defect of Mini-Torrent: {type(error).__name__}: {error}",
        "run the same command again with -v, and report what it prints",
        1,
    )


def _usage_error(error: click.UsageError) -> CliError:
    hint = getattr(error, "hint", None)
    if hint is None and error.ctx is not None:
        words = error.ctx.command_path.split()
        hint = f"see how it is used: {quoted_line([PROGRAM, *words[1:], '--help'])}"
        takes_names = any(isinstance(one, click.Argument) for one in error.ctx.command.params)
        if isinstance(error, click.NoSuchOption) and takes_names:
            hint = _with_dashes(error, words[1:])
    return CliError(Code.USAGE, _usage_text(error), hint, error.exit_code)


def _usage_text(error: click.UsageError) -> str:
    text = _sentence(error.format_message())
    text = re.sub(r"is not a valid integer( range)?$", "is not a whole number", text)
    text = re.sub(r"is not in the range (\d+)<=x<=(\d+)$", r"is not between \1 and \2", text)
    if error.ctx is None:
        return text
    what = "too many arguments"
    if not text.startswith("got unexpected extra argument"):
        # Of `upload-file PATH` click takes PATH for the group, and misses what was typed.
        if not (
            isinstance(error, click.MissingParameter) and error.param and error.param.nargs < 0
        ):
            return text
        what = "missing argument"
    command = error.ctx.command
    names = [
        (one.metavar or (one.name or "").upper()).strip("[]")
        for one in command.params
        if isinstance(one, click.Argument)
    ]
    takes = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
    return f"{what}: {command.name} takes {takes or 'none'}"


def _with_dashes(error: click.NoSuchOption, command: Sequence[str]) -> str:
    words = "put `--` before arguments that start with a dash"
    typed = without_home(error.ctx.meta.get(TYPED, [])) if error.ctx is not None else []
    at = next((at for at, word in enumerate(typed) if word.startswith("-")), 0)
    if not typed or any(word.startswith("-") for word in typed[at + 1 :]):
        return words
    return f"{words}: {quoted_line([PROGRAM, *command, *typed[:at], '--', *typed[at:]])}"


def without_home(words: Sequence[str]) -> list[str]:
    """Return ``words`` without ``--home``, which hints have after the program's name."""
    kept: list[str] = []
    following = iter(words)
    for word in following:
        if word == "--":
            return [*kept, word, *following]
        if word == "--home":
            next(following, None)
        elif not word.startswith("--home="):
            kept.append(word)
    return kept


def _sentence(text: str) -> str:
    """click's messages in our form: one line that is not too long, small initial, no full stop."""
    text = " ".join(text.split()).rstrip(".")
    if len(text) > SENTENCE_MAX:  # it repeats what was typed, however long
        text = f"{text[:SENTENCE_MAX]}…"
    return text[:1].lower() + text[1:]


def refuse_usage(message: str, hint: str | None = None) -> NoReturn:
    """End the command as wrongly used."""
    raise WrongUsage(message, hint)
