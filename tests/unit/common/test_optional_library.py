"""Errors of missing libraries: they name the command that installs them where the program is."""

from __future__ import annotations

import sys

from common.hints import quoted_line
from common.optional_library import library_missing


def test_an_extra_is_installed_where_the_program_is() -> None:
    error = library_missing("top needs", "textual.app", "tui")
    assert error.message == "top needs textual, which is not installed"
    python = quoted_line([sys.executable])
    assert error.hint == f"install it: {python} -m pip install 'mini-torrent[tui]'"
