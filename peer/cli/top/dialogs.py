"""Dialogs of the full-screen view: a question, the limits, and the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from common.messages import control
from peer.cli.top.transfers import rate_typed
from peer.swarm.timetable import parse_rate


class Question(ModalScreen[bool]):
    """A question with yes and no; Enter alone means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,enter,q", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question, and its keys."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._text))
            yield Static(Text("\ny: yes   n: no"))

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)


class Limits(ModalScreen[control.Limit | None]):
    """The limits both ways. Only one that was changed is sent: the others stay by the timetable."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave")]

    def __init__(self, row: control.LimitsRow) -> None:
        super().__init__()
        self._before = {
            "up": rate_typed(row.up_bytes_per_s),
            "down": rate_typed(row.down_bytes_per_s),
        }

    def compose(self) -> ComposeResult:
        """Two fields, and room for an error."""
        with Vertical(classes="dialog"):
            yield Static(Text("Limits in bytes a second, as in 5M or 800K; off for none"))
            for name, text in self._before.items():
                yield Static(Text(name), classes="label")
                yield Input(text, id=name)
            yield Static("", id="fault")
            yield Static(Text("Enter: set them   Esc: leave them"))

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Close with the command, or show what is wrong."""
        changed: dict[str, int] = {}
        for name, before in self._before.items():
            field = self.query_one(f"#{name}", Input)
            if field.value.strip() == before:
                continue
            try:
                changed[name] = parse_rate(field.value.strip())
            except ValueError as error:
                self.query_one("#fault", Static).update(Text(f"{name}: {error}"))
                field.focus()
                return
        self.dismiss(control.Limit(changed.get("up"), changed.get("down")) if changed else None)

    def action_leave(self) -> None:
        """Close without a change."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys; any key closes it."""

    def __init__(self, keys: Sequence[tuple[str, str]], legend: str) -> None:
        super().__init__()
        self._lines = [f"{key:<10}{text}" for key, text in keys] + ["", legend]

    def compose(self) -> ComposeResult:
        """One line for each key."""
        with Vertical(classes="dialog"):
            yield Static(Text("\n".join(self._lines)))

    def on_key(self) -> None:
        """Close."""
        self.dismiss(None)
