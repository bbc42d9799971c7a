"""State of one command line: its peer, its output streams, and JSON or text.

Owns the global options, and everything printed on standard output and standard error but errors.
Not here: errors and their exit codes (see peer.cli.errors), listings (see peer.cli.tables).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.hints import PROGRAM, line, shown
from common.messages.refusals import Code
from common.names import printable
from peer.cli.errors import refuse_usage
from peer.cli.json_form import json_text

if TYPE_CHECKING:
    from common.messages import control
    from peer.control.client import ControlClient, Ended


@dataclass(slots=True)
class Console:
    """The state of one invocation, or of one prompt. ``at_prompt``: commands return at once, and
    ``~`` in paths is expanded here, since no shell has done it. ``alone``: this process is there
    for one command only."""

    home_option: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0
    at_prompt: bool = False
    alone: bool = False
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
            self.home, lambda: self.report("the peer does not answer yet; waiting for it")
        )

    def need_peer(self) -> None:
        """Raise `NoPeerRunning` now rather than after the user was asked for something."""
        from peer.control.client import holder_of

        holder_of(self.home)

    def request(self, command: control.Command) -> Ended:
        """Return the peer's answer. Raises `Refused`, and `NoPeerRunning` if none runs."""
        with self.client() as client:
            return client.result(command)

    def request_with_consent(self, make: Callable[[bool], control.Command], yes: bool) -> Ended:
        """`ask` for a command that may need consent; the user is asked at a terminal.

        Raises `Refused` without a terminal, unless ``yes``.
        """
        from common.errors import Refused
        from common.messages.control import NeedsConsent

        answer = self.request(make(yes))
        if not isinstance(answer, NeedsConsent):
            return answer
        question = printable(answer.question)
        if not sys.stdin.isatty():
            raise Refused(Code.FAILED, question, _with_yes(click.get_current_context()))
        print(f"{question}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused(Code.FAILED, "nothing was done")
        return self.request(make(True))

    def sent_path(self, typed: str) -> str:
        """`path` for the peer, which reads names of files as UTF-8 in every locale.

        The bytes stay the same if they are UTF-8 or the path exists; otherwise the text does.
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
            # Why: most likely an unset variable of a script, which does not mean this folder.
            refuse_usage("the path is empty", "write . for the current folder")
        return os.path.abspath(os.path.expanduser(typed) if self.at_prompt else typed)

    def hinted(self, text: str) -> str:
        """Return ``text`` with its commands completed, so that they reach the same peer."""
        return shown(text, self.home_option, at_prompt=self.at_prompt)

    # -- speaking -------------------------------------------------------------------------------

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    @property
    def draws_progress(self) -> bool:
        """Whether a progress bar may be drawn on standard error."""
        return sys.stderr.isatty() and not self.quiet and not self.as_json

    def print_line(self, text: str) -> None:
        """Print one line on standard output, made printable, and flush it."""
        print(printable(text), flush=True)

    def report(self, text: str) -> None:
        """Print one line on standard error beside the result, unless quiet or in JSON."""
        if not self.quiet and not self.as_json:
            # A reader that has gone away must not stop the command.
            with contextlib.suppress(OSError):
                print(printable(text), file=sys.stderr, flush=True)

    def leave_line(self) -> None:
        """Begin a new line below the ``^C`` that a terminal shows."""
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def json(self, document: Any) -> None:
        """One JSON document on one line, or indented when a person reads it."""
        print(json_text(document, indent=2 if self.terminal else None), flush=True)

    def warn_if_alone(self, status: control.StatusIs) -> None:
        """Warn that a peer just started does not reach its tracker, or is not reachable."""
        if not status.connected:
            reason = status.trouble or "it does not answer"
            text = f"warning: the tracker cannot be reached, the peer keeps trying: {reason}"
            self.report(self.hinted(text))
        elif not status.listen:
            self.report(f"warning: other peers cannot fetch from here yet: {status.trouble}")
        if status.advice:
            self.report(self.hinted(f"warning: {status.advice}"))

    def done(self, answer: Ended) -> None:
        """Print the result of a command that changes something: its text, or what it changed."""
        from common.messages.control import Begun, Done, DoneAll
        from common.messages.documents import document

        if not isinstance(answer, Done | DoneAll | Begun):
            return
        text = self.hinted(answer.text)
        if self.as_json:
            self.json(document(answer))
        elif text and not self.quiet:
            self.print_line(text)


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
