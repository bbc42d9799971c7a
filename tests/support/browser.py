"""Chromium, for tests of the pages and for their pictures (tools/*screenshots.py)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """A browser without a window. It needs the extra ``dev``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """The page at ``address``, freshly opened; nothing may be reported on its console."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_S * 1000)
    page, reported = context.new_page(), []
    page.on(
        "console",
        lambda message: reported.append(message.text) if message.type != "log" else None,
    )
    page.on("pageerror", lambda error: reported.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(address)
    page.wait_for_selector("nav")
    yield page
    assert reported == []
    context.close()


def show_view(page: Any, view: str) -> None:
    """Show a view of the page by its name in the address."""
    page.evaluate("view => { location.hash = '#' + view; }", view)
