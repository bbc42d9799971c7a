"""Commands of hooks, by event, as `peer.toml` has them.

Owns: their form, and the search for their programs. Not here: the run of a command (see
peer.hooks.process) and its variables (see peer.hooks.variables).
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from common.messages.control import HOOK_WORDS_MAX
from common.names import quoted

_Command = Annotated[list[str], Meta(max_length=HOOK_WORDS_MAX)] | str


class HookEvent(StrEnum):
    """Event that a hook can run at."""

    COMPLETE = "complete"
    """A download of this device is complete."""
    FAILED = "failed"
    """A download of this device failed."""
    SHARE = "share"
    """A share appeared in a group."""
    UNSHARE = "unshare"
    """A share is no longer offered in a group."""
    NEW_VERSION = "new_version"
    """A share got a new version."""


class HookSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Section ``[hooks]``: a command for each event, as a list of words, or as one text that is
    split like a shell's line. No shell runs it. ``time_limit_s``: of each run.
    """

    complete: _Command = ""
    failed: _Command = ""
    share: _Command = ""
    unshare: _Command = ""
    new_version: _Command = ""
    time_limit_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 600

    def command(self, event: HookEvent) -> list[str]:
        """The words of the command for ``event``; empty if there is none."""
        command: list[str] | str = getattr(self, event.value)
        words = words_of(command) if isinstance(command, str) else command
        return [os.path.expanduser(words[0]), *words[1:]] if words else []

    def check(self) -> None:
        """Raise `ConfigError` for a command that cannot be read."""
        for event in HookEvent:
            words = self.command(event)
            if words and not words[0]:
                raise ConfigError(f"hook {event}: the name of the program is empty")
            if any("\0" in word for word in words):
                raise ConfigError(f"hook {event}: a word has a zero byte")

    def missing(self) -> list[tuple[HookEvent, str]]:
        """The events whose program is not found, and its name."""
        found = []
        for event in HookEvent:
            words = self.command(event)
            if words and shutil.which(words[0]) is None:
                found.append((event, words[0]))
        return found


def words_of(text: str) -> list[str]:
    """The words of a command line, split as a shell does. Raises `ConfigError`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            f"command {quoted(text)}: cannot be split: {str(error).lower()}",
            "close every quotation mark",
        ) from error
    if len(words) > HOOK_WORDS_MAX:
        raise ConfigError(f"command {quoted(text)}: more than {HOOK_WORDS_MAX} words")
    return words


def shown(words: Sequence[str]) -> str:
    """A command in an error or a log."""
    return quoted(words[0])
