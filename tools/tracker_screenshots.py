"""Pictures of the tracker's page for docs/images: a swarm of real processes, seen by Chromium.

Run as ``python -m tools.tracker_screenshots``; it needs Chromium and the extra ``dev``.
"""

from __future__ import annotations

from typing import Any

from tests.support.browser import chromium, show_view
from tests.support.paths import ROOT
from tests.support.processes import Swarm, operate

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
        with chromium() as browser:
            _page(swarm, browser, "light", 1440).wait_for_timeout(GRAPHS_MS)
            for view, scheme, width in PICTURES:
                page = _page(swarm, browser, scheme, width)
                show_view(page, view)
                page.wait_for_timeout(2_000)  # for its graphs
                page.screenshot(path=str(IMAGES / f"tracker-{view}-{scheme}-{width}.png"))
                page.context.close()
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
    operate(swarm.tracker.home, "backup", str(swarm.root / "backup.db"))
    anna.ok("create-user", "emil", "a password")
    operate(swarm.tracker.home, "disable-user", "emil")


def _page(swarm: Swarm, browser: Any, scheme: Any, width: int) -> Any:
    size: Any = {"width": width, "height": SIZES[width]}
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(operate(swarm.tracker.home, "web", "--no-browser")["address"])
    page.wait_for_selector("nav")
    return page


if __name__ == "__main__":
    main()
