"""`mini-torrent shell`: the same commands at a prompt, as in the original's client.

Owns the prompt, its history, and the report of downloads that ended meanwhile. A peer that the
prompt started is stopped at its end. Not here: the commands (see peer.cli.main), completion (see
peer.cli.completer).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace

import click

from common.cli.command_group import WrongUsage
from common.errors import MiniTorrentError
from common.hints import PROGRAM
from common.host.home import lock_holder
from common.messages import control
from peer.cli import daemon_process
from peer.cli.command import Commands, unknown_command
from peer.cli.completer import NOT_HERE, Completer
from peer.cli.console import Console
from peer.cli.errors import PUBLIC_ARGUMENTS, cli_error, show_traceback
from peer.cli.listings import LETTERS
from peer.cli.prompt_exit import may_leave, wait_for_all
from peer.cli.signals import leaving_in_order
from peer.cli.up_options import check_same, checked

PROMPT = "> "
HISTORY = "history"
HISTORY_LINES = 1000
_LEAVE = ("quit", "exit")
_OTHER_USER = ("login", "logout")
# A line with more words than this contains a password.
_HARMLESS_WORDS = {name: 1 + count for name, count in PUBLIC_ARGUMENTS.items()}


def run(console: Console, context: click.Context, given: Mapping[str, str | None]) -> int:
    """Read commands until `quit` or the end of standard input; returns the exit code."""
    options = checked(given, os.getcwd())
    with leaving_in_order():
        started = _ensure_peer(console, options)  # its PID; `up` or `service` may start another
        try:
            return Prompt(console, context, started=started).run()
        finally:
            if _still_runs(console, started):
                console.report("stopping the peer that this shell started")
                daemon_process.stop(console.home)


def _ensure_peer(console: Console, options: Mapping[str, str]) -> int | None:
    """Start a peer if none runs; returns its PID if it was started."""
    status = daemon_process.running(console.home)
    if status is None:
        status = daemon_process.start(console.home, options, verbose=console.verbose)
        console.report(f"peer ready: {_where(status)} (tracker {status.tracker})")
        console.warn_if_alone(status)
        return status.pid
    check_same(status, options)
    console.report(f"the peer is already running: {_where(status)} (tracker {status.tracker})")
    return None


def _still_runs(console: Console, started: int | None) -> bool:
    return started is not None and lock_holder(console.home) == started


def _where(status: control.StatusIs) -> str:
    return status.listen or control.NOT_LISTENING


_Download = tuple[str, str, str, str, str | None]  # state, group, name, path, reason


class Prompt:
    """Reads lines and runs them. No error of a command ends it.

    ``started``: the PID of the peer that stops with the prompt."""

    def __init__(
        self, console: Console, context: click.Context, *, started: int | None = None
    ) -> None:
        self._console = replace(console, at_prompt=True, alone=False, begun=[])
        self._started = started
        self._line = 0
        self._failed: dict[int, int] = {}  # exit codes of failed lines
        self._begun_by: list[int] = []  # the lines that started the downloads of the console
        self._context = context
        root = context.command
        assert isinstance(root, Commands)
        self._root = root
        self._interactive = sys.stdin.isatty()
        self._used: Console | None = None  # of the last command: its line may name another home
        self._ended = Counter[_Download]()
        self._news()  # downloads that ended before are no news

    def run(self) -> int:
        """Run lines until `quit`, `exit` or the end of standard input; returns the exit code.

        A script ends after its downloads, with the code of the first line that failed.
        """
        if not self._interactive:
            self._loop(sys.stdin.readline)
            codes = wait_for_all(self._console, self._console.begun)
            for line, code in zip(self._begun_by, codes, strict=True):
                self._fail(code, line)
            return self._failed[min(self._failed)] if self._failed else 0
        with _readline(self._console, self._root):
            self._console.report("`help` lists the commands, `quit` leaves")
            while True:
                self._loop(lambda: input(PROMPT) + "\n")
                if may_leave(self._console, _still_runs(self._console, self._started)):
                    return 0

    def _fail(self, code: int, line: int | None = None) -> None:
        if code:
            self._failed.setdefault(self._line if line is None else line, code)

    def _loop(self, read: Callable[[], str]) -> None:
        while True:
            self._announce()
            try:
                line = read()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                print()
                continue
            if not line:
                return
            self._line += 1
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                text = f"cannot parse the line: {str(error).lower()}"
                self._show(WrongUsage(text, "close every quotation mark, or put \\ before it"), [])
                continue
            words = _without_program(words)
            if words and words[0] in _LEAVE:
                return
            if words:
                self._run(words)
                new = len(self._console.begun) - len(self._begun_by)
                self._begun_by += [self._line] * new
                if words[0].replace("_", "-") in _OTHER_USER:
                    self._news()  # the list of the next user is no news

    def _run(self, words: list[str]) -> None:
        try:
            if words[0] in ("help", "?"):
                self._help(words[1:])
            else:
                self._call(words)
        except click.exceptions.Exit as ended:
            self._fail(ended.exit_code)
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not self._interactive:
                raise
            self._show(error, words)
        sys.stdout.flush()

    def _call(self, words: list[str]) -> None:
        command = self._root.get_command(self._context, words[0])
        if command is None or command.name in NOT_HERE:
            names = [name for name in self._root.commands if name not in NOT_HERE]
            names += ["help", "quit"]
            raise unknown_command(words[0], names, words[1:], "`help` lists the commands")
        # The options of a line apply to this line only.
        self._used = replace(self._console)
        outer = click.Context(self._root, info_name="", obj=self._used)
        with command.make_context(words[0], words[1:], parent=outer) as inner:
            code = command.invoke(inner)
            self._fail(code if isinstance(code, int) else 0)

    def _help(self, words: list[str]) -> None:
        if words:
            self._call([words[0], "--help"])
            return
        formatter = self._context.make_formatter()
        self._root.format_commands(self._context, formatter, leave_out=NOT_HERE)
        print(formatter.getvalue().strip("\n"))
        print("\n`help COMMAND` says more, `quit` leaves.")

    def _show(self, error: BaseException, words: list[str]) -> None:
        console = self._used or self._console
        if self._console.verbose:
            show_traceback(error)
        shown = cli_error(error, console.hinted)
        self._fail(shown.exit_code)
        shown.show(as_json=self._console.as_json or "--json" in words)

    # -- what ended meanwhile -------------------------------------------------------------------

    def _news(self) -> Counter[_Download]:
        """The downloads that paused, failed or completed since the last call."""
        if lock_holder(self._console.home) is not None:
            with contextlib.suppress(MiniTorrentError):
                answer = self._console.request(control.ShowDownloads())
                if isinstance(answer, control.Downloads):
                    before, self._ended = self._ended, _at_rest(answer.rows)
                    return self._ended - before
        return Counter()

    def _announce(self) -> None:
        for download in self._news():
            self._console.report(_announcement(*download))


def _at_rest(rows: Iterable[control.DownloadRow]) -> Counter[_Download]:
    return Counter(
        (row.state, row.group, row.name, row.path, row.reason)
        for row in rows
        if row.state != control.DOWNLOADING and not (row.reason or "").startswith(control.QUEUED)
    )


def _without_program(words: list[str]) -> list[str]:
    """Return ``words`` without the name of the program, with which hints and examples begin."""
    return words[1:] if words[:1] == [PROGRAM] and len(words) > 1 else words


def _announcement(state: str, group: str, name: str, path: str, reason: str | None) -> str:
    head = f"[{LETTERS.get(state, state)}] [{group}] {name}"
    if state == control.COMPLETE:
        return f"{head} is complete: {path}"
    what = "failed" if state == control.FAILED else "is paused"
    return f"{head} {what}" + (f": {reason}" if reason else "")


@contextlib.contextmanager
def _readline(console: Console, root: Commands) -> Iterator[None]:
    """Line editing, with completion, and a history that is saved in the home."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = console.home / HISTORY
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    completer = Completer(
        console, root, lambda: readline.get_line_buffer()[: readline.get_endidx()]
    )
    readline.set_completer(completer.complete)
    readline.set_completer_delims(" \t")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _write_history(path, root.commands)


def _may_be_kept(line: str, commands: Container[str]) -> bool:
    """Whether ``line`` cannot contain a password.

    Why only known commands: a mistyped one may have been `login`.
    """
    try:
        words = _without_program(shlex.split(line))
    except ValueError:
        return False
    names = [word.replace("_", "-") for word in words]
    if not names or not (names[0] in commands or names[0] in (*_LEAVE, "help", "?")):
        return False
    if names[0] in _HARMLESS_WORDS:
        return len(names) <= _HARMLESS_WORDS[names[0]]
    return not any(name in _HARMLESS_WORDS for name in names[1:-1])


def _write_history(path: os.PathLike[str], commands: Container[str]) -> None:
    import readline

    for at in range(readline.get_current_history_length(), 0, -1):
        if not _may_be_kept(readline.get_history_item(at) or "", commands):
            readline.remove_history_item(at - 1)
    previous = os.umask(0o077)
    try:
        readline.write_history_file(path)
    finally:
        os.umask(previous)
