"""Progress of a running command: a bar on a terminal, plain or JSON lines in a pipe, or nothing.

Invariant: progress goes to standard error, since standard output is for the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

from common.hints import PROGRAM, line
from common.messages import control
from common.names import printable
from common.units import count_text, percent_text, rate_text, size_text, time_text
from peer.cli.console import Console
from peer.cli.json_form import json_text
from peer.control.client import CommandFailed, Ended

LINE_S = 2.0
STILL_S = 60.0  # without a byte: then, and once in this time, a line says what would help
SMALL_BYTES = 1024 * 1024  # a manifest up to this size is sent too fast to read about it
SAME_LINE_S = 60.0  # how often an unchanged line is repeated: a night makes no long log
BAR_WIDTH, BAR_WIDTH_MIN = 30, 10  # columns


class ProgressDisplay(Protocol):
    """Display of a command's progress."""

    def show(self, progress: control.Progress) -> None: ...

    def print_line(self, line: str) -> None:
        """Print a line that stays on the screen."""


def run(console: Console, command: control.Command, title: str) -> Ended:
    """Send ``command``, show its progress, and return its result; raises `CommandFailed`."""
    with console.client() as client, progress_display(console, title) as display:
        ended: Ended | None = None
        still = Still(why_slow_command(console, command))
        for message in client.request(command):
            match message:
                case control.Progress():
                    if line := still.line(message, monotonic()):
                        display.print_line(line)
                    display.show(message)
                case control.Happened():
                    pass
                case control.Failed():
                    raise CommandFailed(message)
                case _:
                    ended = message
        assert ended is not None
        return ended


@contextmanager
def progress_display(console: Console, title: str) -> Iterator[ProgressDisplay]:
    """The display that suits standard error: a terminal, a pipe, or quiet."""
    if console.quiet:
        yield _Nothing()
    elif console.as_json:
        yield JsonLines()
    elif console.draws_progress:
        with _bar(title) as bar:
            yield bar
    else:
        yield PlainLines(title)


class Still:
    """Reports, once a minute, that a download stands still, why, and what would help.

    ``command`` shows the details; empty where no command does."""

    def __init__(self, command: str = "") -> None:
        self._command = command
        self._done = -1
        self._since = self._next_at = 0.0

    def line(self, progress: control.Progress, now: float) -> str | None:
        """The report that is due now, if one is."""
        if progress.done != self._done or progress.stage in ("checking", "digesting"):
            self._done, self._since, self._next_at = progress.done, now, now + STILL_S
        if now < self._next_at:
            return None
        self._next_at = now + STILL_S
        parts = []
        if progress.stage == "downloading" or not progress.note:
            parts.append(f"nothing has come for {time_text(now - self._since)}")
        if progress.note:
            parts.append(progress.note)
        if progress.advice:
            parts.append(progress.advice)
        if self._command and progress.stage == "downloading":
            parts.append(f"`{self._command}` shows what each source does")
        return printable("; ".join(parts))


def why_slow_command(console: Console, command: control.Command) -> str:
    """The command line that shows the details of a download; empty for other commands."""
    match command:
        case control.DownloadFile(group, name):
            words = [group, name]
        case control.AwaitDownload(group, path):
            words = [group, path]
        case _:
            return ""
    return console.hinted(line(PROGRAM, "why-slow", *words))


class _Nothing:
    def show(self, progress: control.Progress) -> None:
        pass

    def print_line(self, line: str) -> None:
        pass


class JsonLines:
    """One object a line, every few seconds.

    Why none at first: the standard error of a command that fails at once is one document."""

    def __init__(self) -> None:
        self._next_at = monotonic() + LINE_S

    def show(self, progress: control.Progress) -> None:
        now = monotonic()
        if now >= self._next_at:
            self._next_at = now + LINE_S
            print(json_text({"progress": progress_document(progress)}), file=sys.stderr, flush=True)

    def print_line(self, line: str) -> None:
        pass


def progress_document(progress: control.Progress) -> dict[str, Any]:
    """Progress in the regular form of JSON."""
    return {
        "stage": progress.stage,
        "done_bytes": progress.done,
        "total_bytes": progress.total,
        "rate_bytes_per_s": progress.rate,
        "eta_s": progress.eta_s,
        "sources": progress.sources,
        "note": progress.note,
        "advice": progress.advice,
    }


class PlainLines:
    """A line every few seconds if it is new, and at once when the stage or its note changes.

    Why no line before there is a size: a refusal comes just as soon, and then stands alone."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._stage: tuple[str, str | None] | None = None
        self._next_at = 0.0
        self._said, self._again_at = "", 0.0  # the last line, and when it may come again

    def show(self, progress: control.Progress) -> None:
        if not progress.total and not progress.note:
            return
        if progress.stage == "sending the manifest" and progress.total <= SMALL_BYTES:
            return
        stage = (progress.stage, progress.note)
        if stage != self._stage and not (self._stage is None and progress.done):
            self._next_at = 0.0
        self._stage = stage
        now = monotonic()
        if now < self._next_at:
            return
        self._next_at = now + LINE_S
        text = progress_text(progress)
        if text == self._said and now < self._again_at:
            return
        self._said = text
        self.print_line(text)

    def print_line(self, line: str) -> None:
        self._again_at = monotonic() + SAME_LINE_S
        print(f"{self._title}: {line}", file=sys.stderr, flush=True)


def progress_text(progress: control.Progress, room: int | None = None) -> str:
    """Progress in one line of at most ``room`` columns.

    Left out first is the stage (a moving bar shows it), then the peers, then the size."""
    done = f"{percent_text(progress.done, progress.total)}" if progress.total else ""
    of_all = f" of {size_text(progress.total)}" if progress.total else ""
    rate = rate_text(progress.rate) if progress.rate else ""
    peers = f"from {count_text(progress.sources, 'peer')}" if progress.sources else ""
    left = f"{time_text(progress.eta_s)} left" if progress.eta_s is not None else ""
    stage, note = printable(progress.stage), printable(progress.note or "")
    texts = [
        ", ".join(part for part in parts if part)
        for parts in (
            (stage, done + of_all, rate, peers, left, note),
            (done + of_all or stage, rate, peers, left, note),
            (done + of_all or stage, rate, left, note),
            (done or stage, rate, left, note),
        )
    ]
    return next((text for text in texts if room is None or len(text) <= room), texts[-1])


@contextmanager
def _bar(title: str) -> Iterator[ProgressDisplay]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, ProgressColumn, Task
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        """A field of the task as plain text: neither markup nor format codes are read in it."""

        def __init__(self, field: str) -> None:
            super().__init__(Column(no_wrap=True, overflow="ellipsis"))
            self._field = field

        def render(self, task: Task) -> Text:
            return Text(task.fields[self._field])

    class Bar:
        def __init__(self, bars: RichProgress) -> None:
            self._bars = bars
            self._task = bars.add_task("", total=None, title="", text="")

        def show(self, progress: control.Progress) -> None:
            width = bars.console.width - 3
            name = printable(title)
            if len(name) > width // 3:
                name = f"{name[: width // 3 - 1]}…"
            text = progress_text(progress, width - len(name) - BAR_WIDTH_MIN)
            bar.bar_width = max(BAR_WIDTH_MIN, min(BAR_WIDTH, width - len(name) - len(text)))
            self._bars.update(
                self._task,
                total=progress.total or None,
                completed=progress.done,
                title=name,
                text=text,
            )

        def print_line(self, line: str) -> None:
            self._bars.console.print(Text(f"{printable(title)}: {line}"))

    bar = BarColumn(bar_width=BAR_WIDTH)
    bars = RichProgress(
        Words("title"),
        bar,
        Words("text"),
        console=RichConsole(stderr=True),
        transient=True,
    )
    with bars:
        yield Bar(bars)
