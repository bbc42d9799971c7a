"""Generator of the pictures in docs/images: the page of a peer in Chromium, with real peers.

Run: ``python -m tools.screenshots`` (needs the extra ``dev`` and Chromium).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.browser import chromium, show_view
from tests.support.paths import ROOT
from tests.support.processes import Person, Swarm, content
from tests.support.waiting import wait_for

IMAGES = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
WIDE, PHONE = (1440, 900), (390, 844)
MIB = 1 << 20
PICTURES = {
    "page-transfers-light-1440",
    "page-transfers-dark-390",
    "page-group-light-390",
    "page-group-dark-1440",
    "page-download-light-1440",
    "page-download-dark-390",
}
"""Those of docs/page.md: each view in both colours, half of them on a phone."""


def stage(swarm: Swarm) -> tuple[Person, str]:
    """A group with shares, downloads in all states, uploads, a follow and an invitation."""
    anna, bert, cora = (swarm.person(name) for name in ("anna", "bert", "cora"))
    group = "films"
    anna.ok("create-group", group)
    anna.let_in(group, bert, cora)
    swarm.person("dora").ok("join-group", group)
    folder = swarm.folder()

    def share(person: Person, name: str, size: int) -> None:
        (folder / name).write_bytes(content(size, len(name)))
        person.ok("upload-file", str(folder / name), group, "--piece-size", "64K")

    for name, size in (("alps.mkv", 24 * MIB), ("harbour.mkv", 18 * MIB), ("night.mkv", 9 * MIB)):
        share(bert, name, size)
    share(cora, "trailer.mp4", 3 * MIB)
    pictures = folder / "pictures"
    (pictures / "2026").mkdir(parents=True)
    for at in range(12):
        (pictures / "2026" / f"picture-{at:02}.jpg").write_bytes(content(400_000, at))
    bert.ok("upload-file", str(pictures), group, "--piece-size", "64K")
    share(anna, "notes.pdf", 2 * MIB)
    (folder / "notes.pdf").write_bytes(content(3 * MIB, 77))
    anna.ok("upload-file", str(folder / "notes.pdf"), group, "--replace")
    share(anna, "workshop.mkv", 30 * MIB)
    place = swarm.folder("downloads")
    anna.ok("download-file", group, "trailer.mp4", f"{place}/")
    cora.ok("download-file", group, "alps.mkv", f"{swarm.folder()}/")
    for person in (bert, cora):
        person.ok("limit", "--up", "2M")
    anna.ok("limit", "--up", "200K", "--schedule", "08:00,5M 18:00,off")
    for name in ("alps.mkv", "harbour.mkv", "night.mkv"):
        anna.ok("download-file", group, name, f"{place}/", "--no-wait")
    anna.ok("pause", group, "night.mkv")
    cora.ok("download-file", group, "workshop.mkv", f"{swarm.folder()}/", "--no-wait")
    anna.ok("follow", group, str(swarm.folder("follow")), "--match", "*.pdf")

    def under_way() -> bool:
        row = anna.downloads()[group, "alps.mkv"]
        return bool(row["verified_bytes"] > row["size_bytes"] // 5)

    wait_for(under_way, "a part of the download")
    bert.ok("limit", "--up", "150K")
    cora.ok("limit", "--up", "90K")
    return anna, group


def shoot(browser: Any, person: Person, group: str) -> None:
    """Take each view in both colours and both widths."""
    for colours in ("light", "dark"):
        for width, height in (WIDE, PHONE):
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=colours)
            page = context.new_page()
            tail = f"{colours}-{width}"
            page.goto(person.json("web", "--no-browser")["address"])
            page.wait_for_selector(".transfer")
            page.get_by_role("button", name="Why slow?").first.click()
            page.wait_for_selector("canvas.strip")
            page.wait_for_timeout(4000)  # the graph fills
            save(page, person, f"page-transfers-{tail}")
            show_view(page, f"group/{group}")
            page.get_by_role("button", name="Download pictures").wait_for()
            page.wait_for_timeout(500)
            save(page, person, f"page-group-{tail}")
            page.get_by_role("button", name="Download pictures").click()
            page.locator("dialog [name=dest]").fill(str(person.home))
            page.get_by_role("button", name="Choose files").click()
            page.get_by_text("free in").wait_for()
            page.get_by_label("picture-03.jpg").uncheck()
            save(page, person, f"page-download-{tail}")
            context.close()


HIDE = """root => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.data.includes(root)) node.data = node.data.replace(root, "/home");
  }
  for (const one of document.querySelectorAll("input")) {
    one.value = one.value.replace(root, "/home");
  }
}"""


def save(page: Any, person: Person, name: str) -> None:
    """Save the picture, with another folder in the place of the temporary one."""
    if name not in PICTURES:
        return
    page.evaluate(HIDE, str(person.swarm.root))
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")


def main() -> None:
    """Make all pictures."""
    swarm = Swarm()
    try:
        person, group = stage(swarm)
        with chromium() as browser:
            shoot(browser, person, group)
    finally:
        swarm.close()


if __name__ == "__main__":
    main()
