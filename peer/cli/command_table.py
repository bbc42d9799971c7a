"""Table of the commands: the section of each, and the module that makes it.

Why: a command line must answer at once, so only the module of its own command is loaded. A test
compares the table with the modules.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

SECTIONS: dict[str, dict[str, str]] = {
    "This device": {
        "device_commands": "up down shell doctor completion demo",
        "state_commands": "status whoami logs limit",
        "web_command": "web",
        "top_command": "top",
        "metrics_command": "metrics",
        "service_command": "service",
    },
    "Accounts": {
        "account_commands": ("create-user login logout change-password list-devices forget-device"),
    },
    "Groups": {
        "group_commands": (
            "create-group join-group leave-group list-groups list-requests accept-request"
            " reject-request list-members remove-member"
        ),
        "invite_commands": "invite list-invites revoke-invite join",
    },
    "Files": {
        "upload_command": "upload-file",
        "download_command": "download-file",
        "cat_command": "cat",
        "share_commands": "list-files info stop-share withdraw",
        "served_commands": "list-shares move verify",
        "file_commands": "show-downloads pause resume cancel clear why-slow watch",
    },
    "Fleets": {"follow_commands": "follow unfollow list-follows who-has wait"},
}
"""Sections of the help, each with its modules in `peer.cli` and their commands, in order."""


def names_of(section: str) -> list[str]:
    """The commands of a section, in order."""
    return [name for names in SECTIONS[section].values() for name in names.split()]


class LazyCommands(MutableMapping[str, click.Command]):
    """The commands by name; a command is made when it is asked for."""

    def __init__(self) -> None:
        self._modules = {
            name: module
            for modules in SECTIONS.values()
            for module, names in modules.items()
            for name in names.split()
        }
        self._made: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._made:
            module = import_module(f"peer.cli.{self._modules[name]}")
            self._made |= {made.name: made for made in module.COMMANDS}
        return self._made[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._modules[name], self._made[name] = "", command

    def __delitem__(self, name: str) -> None:
        del self._modules[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules
