"""The group of commands of either program: ``-`` and ``_`` in their names are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from click.shell_completion import CompletionItem

from common.names import quoted

TEXT_MIN = 20  # columns of the texts beside names
WIDTH_MIN = 24


class HelpFormatter(click.HelpFormatter):
    """A help page as wide as the terminal, which breaks no word that fits on a line.

    Why: click's own takes 50 columns for granted, and the terminal then breaks the lines.
    """

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        if width is None:
            from shutil import get_terminal_size

            width = max(WIDTH_MIN, min(get_terminal_size().columns, max_width or 80) - 2)
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        rows = list(rows)
        texts_at = min(max(len(first) for first, _ in rows), col_max) + col_spacing
        words = [word for _, text in rows for word in text.split()]
        if self.width - 2 - texts_at < max(TEXT_MIN, *map(len, words)):
            col_max = 2  # texts stand under their names
        super().write_dl(rows, col_max, col_spacing)


class HelpContext(click.Context):
    """A context with our help pages."""

    formatter_class = HelpFormatter


class HelpCommand(click.Command):
    """A command with our help page."""

    context_class = HelpContext


class WrongUsage(click.UsageError):
    """A usage error with a next step of its own."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, click.get_current_context(silent=True))
        self.hint = hint


class CommandGroup(click.Group):
    """A click group whose commands may be spelled, and are completed, with ``-`` or ``_``."""

    context_class = HelpContext
    command_class = HelpCommand

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name.replace("_", "-"))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise self.unknown_command(ctx, args[0], args[1:])
        return super().resolve_command(ctx, args)

    def unknown_command(
        self, ctx: click.Context, typed: str, arguments: Sequence[str]
    ) -> click.UsageError:
        """The error for an unknown command, with the nearest known one."""
        path = ctx.command_path
        found = meant(typed, list(self.commands))
        known = f"did you mean: {path} {found}" if found else f"see the commands: {path} --help"
        return WrongUsage(f"there is no command {quoted(typed)}", known)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        found = super().shell_complete(ctx, incomplete.replace("_", "-"))
        if "_" in incomplete:
            for item in found:
                item.value = item.value.replace("-", "_")
        return found


_MEANT = {
    "upload-file": "share add upload put seed push send publish offer up-load",
    "download-file": "get fetch download pull dl receive wget leech",
    "list-files": "ls list files dir shares show-files",
    "show-downloads": "downloads ps transfers list-downloads progress",
    "up": "start serve daemon connect",
    "down": "stop kill end halt",
    "stop-share": "unshare rm remove delete unseed withdraw",
    "move": "mv rename relocate",
    "list-members": "members users",
    "list-groups": "groups",
    "list-devices": "devices",
    "list-requests": "requests pending",
    "create-user": "signup sign-up register adduser add-user new-user useradd",
    "login": "signin sign-in log-in logon auth",
    "logout": "signout sign-out log-out logoff",
    "change-password": "passwd password",
    "create-group": "mkgroup new-group add-group make-group",
    "join-group": "request ask-to-join",
    "invite": "create-invite make-invite invitation",
    "list-invites": "invites list-invitations invitations",
    "revoke-invite": "revoke uninvite revoke-invitation delete-invite",
    "join": "redeem enter accept-invite",
    "leave-group": "leave",
    "remove-member": "kick ban expel remove-user",
    "accept-request": "accept approve admit",
    "reject-request": "reject deny decline",
    "status": "info state whoami peers",
    "watch": "log logs events tail monitor",
    "doctor": "check diagnose test",
    "cancel": "abort",
    "resume": "continue unpause restart",
    "pause": "suspend",
    "shell": "prompt repl console",
    "why-slow": "slow why sources",
    "--help": "help man usage commands",
    "--version": "version ver",
    "run": "serve foreground",
    "start": "up daemon begin",
    "stop": "down kill end halt",
    "list-users": "users accounts members",
    "disable-user": "disable block ban suspend lock",
    "enable-user": "enable unblock unban unlock",
    "delete-user": "remove-user rmuser userdel deluser",
    "reset-password": "passwd password set-password",
    "delete-group": "remove-group rmgroup groupdel",
    "registration": "signup registrations",
    "backup": "dump export save",
    "restore": "import load",
    "rotate-key": "rotate new-key",
    "link": "url address show-link",
}
"""Names of each command in other tools, by its name here."""


def meant(typed: str, names: Sequence[str]) -> str | None:
    """Return the name that ``typed`` most likely stands for: by its name in other tools, its
    beginning, or a similar spelling."""
    word = typed.replace("_", "-").lower()
    for name, others in _MEANT.items():
        if word in others.split() and (name in names or name.startswith("--")):
            return name
    begun = [name for name in names if name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    # The first word of a name counts as well: `downlod` means `download-file` more than `down`.
    heads = [name.split("-")[0] for name in names]
    forms = {head: name for head, name in zip(heads, names, strict=True) if heads.count(head) == 1}
    forms |= {name: name for name in names}
    from difflib import get_close_matches

    near = get_close_matches(word, list(forms), n=1, cutoff=0.7)
    return forms[near[0]] if near else None
