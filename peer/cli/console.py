"""What one command line knows: whose peer it talks to, how it speaks, and how it says that
something went wrong.

Owns the global options' state, standard output and standard error, JSON, and the form of errors
with their exit codes. What listings look like is `peer.cli.tables`'s business.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from common.errors import MiniTorrentError, exit_code_of
from common.hints import PROGRAM, line, quoted_line, shown
from common.messages.refusals import Code
from common.names import printable

if TYPE_CHECKING:
    from common.messages import control
    from peer.control.client import ControlClient, Ended

SENTENCE_MAX = 400  # characters
INTERRUPTED = 130
TYPED = "mini-torrent.typed"  # in the meta of a context: the words behind the command's name


@dataclass(slots=True)
class Console:
    """The state of one invocation, or of one prompt. ``at_prompt``: commands return at once, and a
    path may begin with ``~`` since no shell stood before us."""

    home_option: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0
    at_prompt: bool = False
    begun: list[control.Begun] = field(default_factory=list, repr=False)
    """The downloads that this prompt began."""
    _home: Path | None = field(default=None, repr=False)

    @property
    def home(self) -> Path:
        """The home of the peer in question, absolute. It need not exist."""
        if self._home is None:
            from common.host.home import default_home

            chosen = Path(self.home_option) if self.home_option else default_home("peer")
            self._home = Path(os.path.abspath(chosen.expanduser()))
        return self._home

    def use_home(self, directory: str) -> None:
        """Talk to the peer of another home."""
        self.home_option, self._home = directory, None

    # -- asking the peer ------------------------------------------------------------------------

    def client(self) -> ControlClient:
        """A connection to the running peer; raises `NoPeerRunning`."""
        from peer.control.client import ControlClient

        return ControlClient(
            self.home, lambda: self.tell("the peer does not answer yet; waiting for it")
        )

    def need_peer(self) -> None:
        """Raise `NoPeerRunning` now rather than after the user was asked for something."""
        from peer.control.client import holder_of

        holder_of(self.home)

    def ask(self, ask: control.Ask) -> Ended:
        """What the peer answers; raises when it refuses or when there is none."""
        with self.client() as client:
            return client.result(ask)

    def ask_with_consent(self, make: Callable[[bool], control.Ask], yes: bool) -> Ended:
        """`ask` for a command that may need the consent of the user, who is asked at a terminal.

        Raises `Refused` without a terminal, unless ``yes``.
        """
        from common.errors import Refused
        from common.messages.control import NeedsConsent

        answer = self.ask(make(yes))
        if not isinstance(answer, NeedsConsent):
            return answer
        question = printable(answer.question)
        if not sys.stdin.isatty():
            raise Refused(Code.FAILED, question, _with_yes(click.get_current_context()))
        print(f"{question}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused(Code.FAILED, "nothing was done")
        return self.ask(make(True))

    def sent_path(self, typed: str) -> str:
        """`path` for the peer, to which names of files are UTF-8 in every locale.

        It is the same bytes where they are UTF-8 or something stands there; otherwise the same
        text.
        """
        path = self.path(typed)
        errors = "surrogateescape" if os.path.lexists(path) else "strict"
        try:
            return os.fsencode(path).decode("utf-8", errors)
        except UnicodeError:
            return path

    def path(self, typed: str) -> str:
        """A path as it was typed, made absolute from where it was typed."""
        if not typed:
            # An unset variable of a script, most likely: the current folder was not meant.
            refuse_usage("an empty path", "`.` is the folder in which you are")
        return os.path.abspath(os.path.expanduser(typed) if self.at_prompt else typed)

    def hinted(self, text: str) -> str:
        """``text`` with the commands in it as they have to be typed to reach the same peer."""
        return shown(text, self.home_option, at_prompt=self.at_prompt)

    # -- speaking -------------------------------------------------------------------------------

    @property
    def terminal(self) -> bool:
        """Whether a person reads standard output."""
        return sys.stdout.isatty()

    @property
    def pictures(self) -> bool:
        """Whether a progress bar may be drawn on standard error."""
        return sys.stderr.isatty() and not self.quiet and not self.as_json

    def say(self, text: str) -> None:
        """One line on standard output, which nothing in it can break; flushed."""
        print(printable(text), flush=True)

    def tell(self, text: str) -> None:
        """One line on standard error beside the result, unless the user wants it quiet."""
        if not self.quiet and not self.as_json:
            # Nobody may be there to read it any more, which must not keep us from what follows.
            with contextlib.suppress(OSError):
                print(printable(text), file=sys.stderr, flush=True)

    def leave_line(self) -> None:
        """Go below what a terminal shows of a Ctrl-C."""
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def json(self, document: Any) -> None:
        """One JSON document on one line, or indented when a person reads it."""
        print(json_text(document, indent=2 if self.terminal else None), flush=True)

    def warn_if_alone(self, status: control.StatusIs) -> None:
        """Say so when a peer that has just been started does not reach its tracker."""
        if not status.connected:
            reason = status.trouble or "it does not answer"
            text = f"warning: the tracker cannot be reached, the peer keeps trying: {reason}"
            self.tell(self.hinted(text))
        elif not status.listen:
            self.tell(f"warning: nobody can fetch from here yet: {status.trouble}")
        if status.advice:
            self.tell(f"warning: {status.advice}")

    def done(self, answer: Ended, text: str = "") -> None:
        """Say that a command without a result was done; ``text`` when the peer gave none."""
        from common.messages.control import Begun, Done, Left, PasswordChanged

        told = answer.text if isinstance(answer, Done | Begun | Left | PasswordChanged) else ""
        said = self.hinted(told or text)
        if self.as_json:
            document: dict[str, Any] = {"done": True, "text": said}
            if isinstance(answer, PasswordChanged):
                document["logged_out"] = answer.logged_out
            if isinstance(answer, Left):
                document |= {"group": answer.group, "owner": answer.owner}
            if isinstance(answer, Begun):
                document["path"] = answer.path
            self.json(document)
        elif said and not self.quiet:
            self.say(said)


def plain(struct: Any) -> Any:
    """A control struct, or a list of them, as ``--json`` prints it."""
    import msgspec

    if isinstance(struct, list):
        return [plain(row) for row in struct]
    document = msgspec.to_builtins(struct)
    document.pop("type", None)
    return document


def json_text(document: Any, indent: int | None = None) -> str:
    """JSON that can do no harm to a terminal: everything but printable ASCII is escaped."""
    import json

    return json.dumps(document, ensure_ascii=True, indent=indent).replace("\x7f", "\\u007f")


def _with_yes(ctx: click.Context) -> str:
    """The command that was typed, with ``--yes``, and without a password."""
    arguments = [
        str(value)
        for one in ctx.command.params
        if isinstance(one, click.Argument) and one.name and one.name != "password"
        if (value := ctx.params.get(one.name)) is not None
    ]
    command = line(PROGRAM, ctx.command.name or "", *arguments, options=("--yes",))
    return f"to do it all the same: {command}"


# -- what went wrong ----------------------------------------------------------------------------


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
    """Where ``error`` comes from, on standard error and set in: what others wrote may be part of
    it, and must not pass for a line of ours."""
    import traceback

    for part in traceback.format_exception(error):
        for row in part.rstrip("\n").split("\n"):
            print(f"  {printable(row)}", file=sys.stderr)


def trouble_of(error: BaseException, console: Console) -> CliError:
    """What to tell the user about ``error``, with hints for the peer that ``console`` talks to."""
    trouble = _trouble_of(error)
    return replace(trouble, hint=console.hinted(trouble.hint)) if trouble.hint else trouble


def _trouble_of(error: BaseException) -> CliError:
    match error:
        case MiniTorrentError():
            return CliError(error.code, error.message, error.hint, exit_code_of(error))
        case click.UsageError():
            return _usage_trouble(error)
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
        "run it again with `-v` for the details, and report them",
        1,
    )


def _usage_trouble(error: click.UsageError) -> CliError:
    hint = getattr(error, "hint", None)
    if hint is None and error.ctx is not None:
        words = error.ctx.command_path.split()
        hint = f"see how it is used: {quoted_line([PROGRAM, *words[1:], '--help'])}"
        takes_names = any(isinstance(one, click.Argument) for one in error.ctx.command.params)
        if isinstance(error, click.NoSuchOption) and takes_names:
            hint = _with_dashes(error, words[1:])
    return CliError(Code.USAGE, _sentence(error.format_message()), hint, error.exit_code)


def _with_dashes(error: click.NoSuchOption, command: Sequence[str]) -> str:
    words = "put `--` before arguments that start with a dash"
    typed = without_home(error.ctx.meta.get(TYPED, [])) if error.ctx is not None else []
    at = next((at for at, word in enumerate(typed) if word.startswith("-")), 0)
    if not typed or any(word.startswith("-") for word in typed[at + 1 :]):
        return words
    return f"{words}: {quoted_line([PROGRAM, *command, *typed[:at], '--', *typed[at:]])}"


def without_home(words: Sequence[str]) -> list[str]:
    """``words`` without ``--home``, which hints have behind the program's name."""
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


class WrongUsage(click.UsageError):
    """A usage error with a next step of its own."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, click.get_current_context(silent=True))
        self.hint = hint


def refuse_usage(message: str, hint: str | None = None) -> NoReturn:
    """End the command as wrongly used."""
    raise WrongUsage(message, hint)
