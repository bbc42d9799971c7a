"""Display of the demo: live on a terminal, plain lines in a pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from common.messages import control
from common.names import printable
from common.units import count_text, number_text, percent_text, rate_text, size_text, time_text
from peer.cli.console import Console
from peer.cli.json_form import plain
from peer.cli.tables import Column, Table, show

FRAME_S = 0.1
LINE_S = 1.0
BAR_WIDTH, BAR_WIDTH_MIN = 30, 6  # columns


@dataclass(slots=True)
class Fetch:
    """One download: filled in by the thread that waits for it, read by the display."""

    name: str
    size: int
    progress: control.Progress | None = None
    done: control.Downloaded | None = None
    error: Exception | None = None
    began_at: float | None = None
    ended_at: float | None = None

    @property
    def bytes_there(self) -> int:
        if self.done is not None:
            return self.size
        return self.progress.done if self.progress is not None else 0

    @property
    def elapsed_s(self) -> float:
        """Time from the request to the end."""
        return (self.ended_at or monotonic()) - (self.began_at or monotonic())

    def words(self) -> str:
        """Rate and sources, or how it ended."""
        if self.error is not None:
            return printable(f"failed: {self.error}")
        if self.done is not None:
            sources = count_text(len(self.done.sources), "peer")
            rate = rate_text(self.done.rate_bytes_per_s)
            return f"{rate} from {sources}, done in {self.elapsed_s:.2f} s"
        if self.progress is None:
            return "asking"
        if not self.progress.sources:
            return printable(self.progress.stage)
        sources = count_text(self.progress.sources, "peer")
        return f"{rate_text(self.progress.rate)} from {sources}"


class DemoView:
    """Reports the steps in order. With ``--json``, one document at the end; if quiet, the table."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._silent = console.quiet or console.as_json
        self._document: dict[str, Any] = {}

    def report(self, text: str) -> None:
        """Print a line about a step."""
        if not self._silent:
            self._console.print_line(text)

    def shared(self, owner: str, uploaded: control.Uploaded) -> None:
        """Report the share and its user."""
        row = uploaded.row
        files = f"{count_text(row.files, 'file')}, " if row.files != 1 else ""
        self.report(
            f"share     {row.name}: {size_text(row.size_bytes)}, {files}"
            f"{count_text(row.pieces, 'piece')}, by {owner} in {time_text(uploaded.elapsed_s)}"
        )

    def watch(self, fetches: list[Fetch], start: Callable[[], list[threading.Thread]]) -> None:
        """Show the downloads that ``start`` begins until each has ended."""
        self.report("download  all others at once:")
        threads = start()
        if self._silent:
            _join(threads)
        elif self._console.terminal:
            self._live(fetches, threads)
        else:
            self._lines(fetches, threads)

    def _lines(self, fetches: list[Fetch], threads: list[threading.Thread]) -> None:
        next_at = monotonic() + LINE_S
        while any(thread.is_alive() for thread in threads):
            _join(threads, FRAME_S)
            if monotonic() >= next_at:
                next_at = monotonic() + LINE_S
                for fetch in fetches:
                    self.report(f"  {_line(fetch)}")
        for fetch in fetches:
            self.report(f"  {_line(fetch)}")

    def _live(self, fetches: list[Fetch], threads: list[threading.Thread]) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        rich = RichConsole()
        with Live(_bars(fetches, rich.width), console=rich, auto_refresh=False) as live:
            while any(thread.is_alive() for thread in threads):
                _join(threads, FRAME_S)
                live.update(_bars(fetches, rich.width), refresh=True)
            live.update(_bars(fetches, rich.width), refresh=True)

    def same(self, digest: str) -> None:
        """Every copy has the digest of the original."""
        self._document["digest"] = digest
        self.report(f"compare   all copies read back: blake3 {digest}")

    def table(self, fetches: list[Fetch], uploaded: control.Uploaded) -> None:
        """Print each peer with its time, rate and the sources of its pieces."""
        rows = []
        for fetch in fetches:
            done = fetch.done
            if done is None:
                continue
            sources = sorted(done.sources, key=lambda source: -source.pieces)
            pieces = ", ".join(f"{source.user} {number_text(source.pieces)}" for source in sources)
            rate = rate_text(fetch.size / max(fetch.elapsed_s, 1e-9))
            rows.append((fetch.name, f"{fetch.elapsed_s:.2f} s", rate, pieces or "none"))
        self._document["size_bytes"] = uploaded.row.size_bytes
        self._document["peers"] = [
            {
                "user": fetch.name,
                "elapsed_s": round(fetch.elapsed_s, 3),
                "rate_bytes_per_s": fetch.done.rate_bytes_per_s,
                "sources": [plain(source) for source in fetch.done.sources],
            }
            for fetch in fetches
            if fetch.done is not None
        ]
        if self._console.as_json:
            return
        columns = (Column("peer"), Column("time", True), Column("rate", True))
        if not self._silent:
            print()
        listing = Table((*columns, Column("pieces by source")), rows, "There were no downloads.")
        show(listing, self._console)
        if not self._silent:
            print()

    def end(self) -> None:
        """Report success, after everything was removed."""
        if self._console.as_json:
            self._console.json({"ok": True, **self._document})
        self.report("Every byte arrived. No process and no file is left behind.")


def _join(threads: list[threading.Thread], timeout_s: float | None = None) -> None:
    """Wait for all of them, or for the first that lives for at most ``timeout_s``."""
    for thread in threads:
        if thread.is_alive():
            thread.join(timeout_s)
            if timeout_s is not None:
                return


def _line(fetch: Fetch) -> str:
    return f"{fetch.name:<8} {percent_text(fetch.bytes_there, fetch.size):>5}  {fetch.words()}"


def _bars(fetches: list[Fetch], width: int) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 1))
    words = {fetch.name: fetch.words() for fetch in fetches}
    names_width, words_width = max(map(len, words)) + 2, max(map(len, words.values()))
    bar_width = max(BAR_WIDTH_MIN, min(BAR_WIDTH, width - names_width - 5 - words_width - 3))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    for fetch in fetches:
        there = fetch.bytes_there if fetch.size else int(fetch.done is not None)
        grid.add_row(
            Text(f"  {fetch.name}"),
            ProgressBar(total=fetch.size or 1, completed=there, width=bar_width),
            Text(f"{percent_text(there, fetch.size or 1):>5}"),
            Text(words[fetch.name], overflow="ellipsis"),
        )
    return grid
