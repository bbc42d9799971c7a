"""The group of commands of either program: ``-`` and ``_`` in their names are the same."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

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


_MEANT = {
    "upload-file": "share add upload put seed push send publish offer up-load",
    "download-file": "get fetch download pull dl receive wget leech",
    "list-files": "ls list files dir shares show-files",
    "show-downloads": "downloads ps transfers list-downloads progress",
    "up": "start serve daemon connect",
    "down": "stop kill end halt",
    "stop-share": "unshare rm remove delete unseed withdraw",
    "list-members": "members users list-users",
    "list-groups": "groups",
    "list-devices": "devices",
    "list-requests": "requests pending",
    "create-user": "signup sign-up register adduser add-user new-user useradd",
    "login": "signin sign-in log-in logon auth",
    "logout": "signout sign-out log-out logoff",
    "change-password": "passwd password",
    "create-group": "mkgroup new-group add-group make-group",
    "join-group": "join",
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
    "run": "start serve up daemon",
    "backup": "dump export save",
    "restore": "import load",
    "rotate-key": "rotate new-key",
    "link": "url address show-link",
}
"""What other tools call a command, by what it is called here."""


def meant(typed: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that ``typed`` stands for, most likely: what other tools call it, a
    beginning of it alone, or a name that is spelled nearly so."""
    word = typed.replace("_", "-").lower()
    for name, others in _MEANT.items():
        if word in others.split() and (name in names or name.startswith("--")):
            return name
    begun = [name for name in names if name.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    near = get_close_matches(word, names, n=1, cutoff=0.7)
    return near[0] if near else None
