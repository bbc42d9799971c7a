"""Libraries of extras: the error when one is missing, and the command that installs it."""

from __future__ import annotations

import sys

from common.errors import ConfigError
from common.hints import shell_hint


def library_missing(what: str, library: str | None, extra: str) -> ConfigError:
    """Return the error of ``what``, such as "top needs", that lacks a library of an extra."""
    name = (library or "a library").partition(".")[0]
    return ConfigError(f"{what} {name}, which is not installed", install_hint(extra))


def install_hint(extra: str) -> str:
    """Return the command that installs an extra where this program is installed."""
    return shell_hint("install it", *pip_words(), "install", f"mini-torrent[{extra}]")


def pip_words() -> list[str]:
    """Return the words of the pip of this environment.

    Why not ``pip`` alone: it may be that of the system, or of another environment.
    """
    return [sys.executable, "-m", "pip"] if sys.executable else ["pip"]
