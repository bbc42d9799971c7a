"""Pictures of the tracker's page for docs/images: a swarm of real processes, seen by Chromium.

Run as ``python -m tools.tracker_screenshots``; it needs Chromium and the extra ``dev``.
"""

from __future__ import annotations

import shutil
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.support.paths import ROOT
from tests.support.processes import TRACKER, Swarm, run_program

IMAGES = ROOT / "docs" / "images"
SIZES = {1440: 900, 390: 844}
PICTURES = (
    ("overview", "light", 1440),
    ("load", "light", 1440),
    ("shares", "dark", 1440),
    ("users", "light", 390),
    ("overview", "dark", 390),
)
GRAPHS_MS = 50_000  # recorded before the pictures


def main() -> None:
    """Write the pictures."""
    swarm = Swarm()
    try:
        _fill(swarm)
        with sync_playwright() as started:
            browser = started.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            _page(swarm, browser, "light", 1440).wait_for_timeout(GRAPHS_MS)
            for view, scheme, width in PICTURES:
                page = _page(swarm, browser, scheme, width)
                page.evaluate("view => { location.hash = '#' + view; }", view)
                page.wait_for_timeout(2_000)  # for its graphs
                page.screenshot(path=str(IMAGES / f"tracker-{view}-{scheme}-{width}.png"))
                page.context.close()
            browser.close()
    finally:
        swarm.close()


def _fill(swarm: Swarm) -> None:
    anna, bert, cora, dora = (swarm.person(name) for name in ("anna", "bert", "cora", "dora"))
    group, films = anna.group_with(bert, cora), dora.group_with(bert)
    data = swarm.file(60_000_000, "dataset-2031-05.tar")
    anna.share(data, group)
    cora.share(swarm.file(2_000_000, "notes.pdf"), group)
    film = dora.share(swarm.file(30_000_000, "film.mkv"), films)
    cora.ok("download-file", group, data.name, swarm.folder())
    bert.down()
    bert.up("--download-limit", "400K")
    bert.ok("download-file", group, data.name, swarm.folder(), "--no-wait")
    bert.ok("download-file", films, film["name"], swarm.folder(), "--no-wait")
    dora.down()
    anna.refused("login", "anna", "a wrong password")
    _operate(swarm, "backup", str(swarm.root / "backup.db"))
    anna.ok("create-user", "emil", "a password")
    _operate(swarm, "disable-user", "emil")


def _operate(swarm: Swarm, *words: str) -> Any:
    ran = run_program([TRACKER, *words, "--home", str(swarm.tracker.home), "--json"])
    assert ran.code == 0, str(ran)
    return ran.json


def _page(swarm: Swarm, browser: Browser, scheme: Any, width: int) -> Any:
    size: Any = {"width": width, "height": SIZES[width]}
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(_operate(swarm, "web", "--no-browser")["address"])
    page.wait_for_selector("nav")
    return page


if __name__ == "__main__":
    main()
