"""The group of commands of either program: ``-`` and ``_`` in their names are the same."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class CommandGroup(click.Group):
    """A click group whose commands may be spelled, and are completed, with ``-`` or ``_``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name.replace("_", "-"))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        found = super().shell_complete(ctx, incomplete.replace("_", "-"))
        if "_" in incomplete:
            for item in found:
                item.value = item.value.replace("-", "_")
        return found
