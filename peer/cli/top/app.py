"""Full-screen application: transfers both ways, sources, pieces and events (Textual).

Invariant: texts of others are shown as `rich.text.Text`, never as strings, which Textual would read
as markup. The chosen row has a mark of its own, since a terminal may have no colours.

Owns: the layout, the keys and the chosen row. Not here: texts (see peer.cli.top.transfers), the
peer (see peer.cli.top.feed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, RichLog, Static

from common.errors import MiniTorrentError
from common.messages import control
from common.names import printable, quoted
from peer.cli.listings import EventLines
from peer.cli.top import transfers as rows
from peer.cli.top.dialogs import Help, Limits, Question
from peer.cli.top.feed import Connect, Feed
from peer.cli.top.transfers import Glyphs, Key, Snapshot, Transfer

EVENTS_MAX = 500  # lines
MARK = ">"
STYLES = {
    control.DOWNLOADING: "cyan",
    rows.UPLOADING: "green",
    control.PAUSED: "yellow",
    control.FAILED: "red",
    control.COMPLETE: "dim",
}
STRIP_STYLES = {"held": "blue", "flight": "yellow", "missing": "dim", "absent": "red"}


class Top(App[MiniTorrentError | None]):
    """The application. It ends with the error that ended it, or with None."""

    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - as in App
    VERTICAL_BREAKPOINTS = [(0, "-short"), (14, "-tall")]  # noqa: RUF012 - as in App
    CSS = """
    #head { height: auto; max-height: 3; }
    #transfers { height: 1fr; min-height: 3; scrollbar-size-vertical: 1; overflow-x: hidden; }
    #lower { height: 45%; }
    .-short #lower { display: none; }
    #details { width: 3fr; scrollbar-size-vertical: 1; }
    #events { width: 2fr; scrollbar-size: 1 1; background: $background; }
    .-wide #events { border-left: solid $panel; }
    .-narrow #events { display: none; }
    .-narrow.events #events { display: block; width: 1fr; }
    .-narrow.events #details { display: none; }
    Question, Limits, Help { align: center middle; }
    .dialog { width: auto; max-width: 76; height: auto; padding: 0 2; background: $panel; }
    .dialog Static { width: auto; max-width: 72; }
    .dialog Input { width: 30; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause"),
        Binding("r", "resume", "resume"),
        Binding("c", "cancel", "cancel"),
        Binding("l", "limits", "limits"),
        Binding("e", "events", "events"),
        Binding("question_mark,h", "help", "help", key_display="?"),
        Binding("q,ctrl+c", "quit", "quit", key_display="q", priority=True),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, connect: Connect, *, glyphs: Glyphs = rows.UNICODE, refresh_s: float = 1.0):
        super().__init__()
        self._glyphs = glyphs
        self._feed = Feed(connect, self, refresh_s)
        self._event_lines = EventLines(aligned=True)
        self._snapshot: Snapshot | None = None
        self._shown: list[tuple[Key, list[str]]] = []
        self._widths: list[int] = []
        self._chosen: Key | None = None

    # -- layout ---------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The head, the list, what is known about the chosen transfer, events, and the keys."""
        yield Static(Text("connecting"), id="head")
        yield DataTable(id="transfers", cursor_type="row", cell_padding=0)
        with Horizontal(id="lower"):
            with VerticalScroll(id="details"):
                yield Static("", id="about")
            yield RichLog(id="events", max_lines=EVENTS_MAX, markup=False, min_width=20)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask the peer."""
        self._table.focus()
        self._feed.start()

    def on_unmount(self) -> None:
        """End the threads."""
        self._feed.close()

    @property
    def _table(self) -> DataTable[Text]:
        return self.screen_stack[0].query_one("#transfers", DataTable)

    # -- the feed, on its threads ---------------------------------------------------------------

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """As of `Screen`."""
        self._later(lambda: self._show(snapshot))

    def take_event(self, event: control.Happened) -> None:
        """As of `Screen`."""
        self._later(lambda: self._add_event(event))

    def take_result(self, text: str, failed: bool) -> None:
        """As of `Screen`."""
        self._later(lambda: self._notify(text, failed))

    def take_end(self, error: MiniTorrentError) -> None:
        """As of `Screen`."""
        self._later(lambda: self.exit(error))

    def _later(self, call: Callable[[], object]) -> None:
        """Call in the thread of the screen, if that has not ended."""
        if self.is_running:
            self.call_later(call)

    def _add_event(self, event: control.Happened) -> None:
        log = self.screen_stack[0].query_one("#events", RichLog)
        log.write(Text(self._event_lines.line(event)))

    def _notify(self, text: str, failed: bool = False) -> None:
        if text:
            self.notify(
                printable(text), severity="error" if failed else "information", markup=False
            )

    # -- drawing --------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Fit all texts into the new width."""
        if (snapshot := self._snapshot) is not None:
            self.call_after_refresh(lambda: self._show(snapshot))

    def _show(self, snapshot: Snapshot) -> None:
        self._snapshot, base = snapshot, self.screen_stack[0]
        head = rows.head_lines(snapshot, self._glyphs, self.size.width)
        base.query_one("#head", Static).update(Text("\n".join(head)))
        self._draw_table(self._table, snapshot)
        self._draw_about()

    def _draw_table(self, table: DataTable[Text], snapshot: Snapshot) -> None:
        widths = rows.columns_of(self.size.width - 1)
        listed = snapshot.transfers[: rows.ROWS_MAX]
        found = [(one.key, rows.cells_of(one, widths, self._glyphs)) for one in listed]
        keys = [key for key, _ in found]
        if self._chosen not in keys:
            at = min(table.cursor_row, len(keys) - 1)
            self._choose(keys[max(0, at)] if keys else None)
        same = widths == self._widths and [key for key, _ in self._shown] == keys
        if same:
            for at, (key, cells) in enumerate(found):
                if self._shown[at][1] != cells:
                    self._fill(table, at, key, cells, listed[at].state)
        else:
            self._rebuild(table, widths, found, listed)
        self._widths, self._shown = widths, found

    def _rebuild(
        self,
        table: DataTable[Text],
        widths: list[int],
        found: list[tuple[Key, list[str]]],
        listed: tuple[Transfer, ...],
    ) -> None:
        with self.prevent(DataTable.RowHighlighted):
            table.clear(columns=True)
            for at, (title, width) in enumerate(zip(rows.HEADS, widths, strict=True)):
                if width:
                    table.add_column(Text(title.upper()), width=width, key=str(at))
            for at, (key, cells) in enumerate(found):
                texts = self._texts(key, cells, listed[at].state)
                shown = [text for text, width in zip(texts, widths, strict=True) if width]
                table.add_row(*shown, key=str(at))
            keys = [key for key, _ in found]
            if self._chosen in keys:
                table.move_cursor(row=keys.index(self._chosen), animate=False)

    def _texts(self, key: Key, cells: list[str], state: str) -> list[Text]:
        texts = [MARK if key == self._chosen else "", *cells]
        style = STYLES.get(state, "")
        return [Text(text, style if at == 4 else "") for at, text in enumerate(texts)]

    def _fill(
        self, table: DataTable[Text], at: int, key: Key, cells: list[str], state: str
    ) -> None:
        for column, text in enumerate(self._texts(key, cells, state)):
            if self._widths[column]:
                table.update_cell(str(at), str(column), text)

    def _draw_about(self) -> None:
        about = self.screen_stack[0].query_one("#about", Static)
        snapshot, one = self._snapshot, self._now()
        width = max(20, about.container_size.width - 1)
        if snapshot is None or one is None:
            about.update(Text("" if snapshot is None else "Nothing is transferred now."))
            return
        text = Text("\n".join(rows.about_lines(one, width)), no_wrap=True)
        if snapshot.of == one.key:
            strip = rows.strip_text(snapshot.cells, self._glyphs, width)
            if strip:
                text.append("\n")
            for kind, part in strip:
                text.append(part, STRIP_STYLES[kind])
            for line in rows.peers_lines(one, snapshot.sources, width):
                text.append(f"\n{line}")
        about.update(text)

    # -- the chosen transfer --------------------------------------------------------------------

    def _now(self) -> Transfer | None:
        found = self._snapshot.transfers if self._snapshot is not None else ()
        return next((one for one in found if one.key == self._chosen), None)

    def _choose(self, key: Key | None) -> None:
        self._chosen = key
        self._feed.choose(self._now())

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Mark the row under the cursor, and show what is known about it."""
        if not 0 <= event.cursor_row < len(self._shown):
            return
        key = self._shown[event.cursor_row][0]
        if key == self._chosen:
            return
        before, table = self._chosen, self._table
        self._choose(key)
        for at, (one, _) in enumerate(self._shown):
            if one in (before, key):
                table.update_cell(str(at), "0", Text(MARK if one == key else ""))
        self._draw_about()

    # -- keys -----------------------------------------------------------------------------------

    def action_down(self) -> None:
        """Choose the next row."""
        self._table.action_cursor_down()

    def action_up(self) -> None:
        """Choose the row before."""
        self._table.action_cursor_up()

    def _download(self) -> Transfer | None:
        one = self._now()
        if one is not None and one.uploads:
            self._notify("this is an upload; it ends with the download of the other device", True)
            return None
        return one

    def action_pause(self) -> None:
        """Pause the chosen download."""
        if (one := self._download()) is not None:
            self._feed.run(control.Pause(one.group, one.path))

    def action_resume(self) -> None:
        """Resume the chosen download."""
        if (one := self._download()) is not None:
            self._feed.run(control.Resume(one.group, one.path))

    def action_cancel(self) -> None:
        """Cancel the chosen download, after a question."""
        one = self._download()
        if one is None:
            return
        name = quoted(one.name)
        text = (
            f"Take {name} off the list? Its file stays."
            if one.ended
            else f"Cancel {name}? What was fetched is removed."
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._feed.run(control.Cancel(one.group, one.path))

        self.push_screen(Question(text), answered)

    def action_limits(self) -> None:
        """Change the limits."""
        if self._snapshot is None:
            return

        def answered(command: control.Limit | None) -> None:
            if command is not None:
                self._feed.run(command)

        self.push_screen(Limits(self._snapshot.status.limits), answered)

    def action_events(self) -> None:
        """Show the events in the place of the sources, or these again."""
        self.screen.toggle_class("events")

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help(rows.HELP, rows.legend(self._glyphs)))
