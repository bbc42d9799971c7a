"""Libraries of extras: the error when one is missing."""

from __future__ import annotations

from common.errors import ConfigError
from common.hints import shell_hint


def library_missing(what: str, library: str | None, extra: str) -> ConfigError:
    """Return the error of ``what``, such as "top needs", that lacks a library of an extra."""
    name = (library or "a library").partition(".")[0]
    return ConfigError(
        f"{what} {name}, which is not installed",
        shell_hint("install it", "pip", "install", f"mini-torrent[{extra}]"),
    )
