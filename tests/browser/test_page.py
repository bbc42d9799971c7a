"""The page of a peer in a real browser: a first hour, hostile names, and attacks by other pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common.cli.browser import open_page
from tests.support.browser import CHROMIUM, chromium, opened, show_view
from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium, to test the page"
)
HOSTILE = "<img src=x onerror=document.title='taken'>.txt"


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = "--host-resolver-rules=MAP *.example 127.0.0.1"  # as an attacker's DNS would
    with chromium(names) as browser:
        yield browser


def page_of(person: Person, browser: Any) -> AbstractContextManager[Any]:
    return opened(browser, person.json("web", "--no-browser")["address"])


def fill(page: Any, title: str, **fields: str) -> None:
    """Fill the form under the heading ``title`` and send it."""
    panel = page.locator("section", has=page.get_by_role("heading", name=title, exact=True))
    for name, text in fields.items():
        panel.locator(f"[name={name}]").fill(text)
    panel.locator("form button").click()


def test_the_story_of_a_first_hour(swarm: Swarm, browser: Any) -> None:
    anna, bert = swarm.person("anna", log_in=False), swarm.person("bert", log_in=False)
    shared = swarm.file(400_000, "model.bin")
    with page_of(anna, browser) as first, page_of(bert, browser) as second:
        for page, user in ((first, "anna"), (second, "bert")):
            fill(page, "Create an account", user=user, password="a password", again="a password")
            page.get_by_role("heading", name="Transfers", exact=True).wait_for()
        show_view(first, "groups")
        fill(first, "Create a group", group="lab")
        first.get_by_role("cell", name="lab", exact=True).wait_for()
        show_view(first, "group/lab")
        fill(first, "Share", path=str(shared))
        first.get_by_text("1 share", exact=True).wait_for()

        show_view(second, "group/lab")
        second.get_by_role("button", name="Ask to join").click()
        second.get_by_text("You asked to join").wait_for()
        first.get_by_role("button", name="Accept").click()
        second.get_by_role("button", name="Download model.bin").click()
        dest = swarm.folder()
        second.locator("dialog [name=dest]").fill(str(dest))
        second.locator("dialog form button").click()
        show_view(second, "transfers")
        second.locator(".transfer .chip.complete").wait_for()
        assert (dest / "model.bin").read_bytes() == shared.read_bytes()
        folder = swarm.folder("pictures")
        for name in ("a [1].jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(name.encode() * 100)
        show_view(first, "group/lab")
        fill(first, "Share", path=str(folder))
        show_view(second, "group/lab")
        second.get_by_role("button", name=f"Download {folder.name}").click()
        assert second.locator("dialog [name=dest]").input_value() == str(dest)
        second.get_by_text(f"free in {dest}").wait_for()
        second.get_by_role("button", name="Choose files").click()
        second.get_by_label("b.jpg").uncheck()
        second.get_by_text("3 of 4 files").wait_for()
        second.get_by_role("button", name="Download", exact=True).last.click()
        got = dest / folder.name
        wait_for(lambda: (got / "sub/d.jpg").exists(), "the chosen files")
        assert {path.name for path in got.rglob("*.jpg")} == {"a [1].jpg", "c.jpg", "d.jpg"}
        show_view(first, "shares")
        first.get_by_text(str(shared)).wait_for()
        show_view(first, "device")
        fill(first, "Limits", up="5M")
        first.get_by_text("Upload: 5.0 MiB/s").wait_for()
        fill(first, "Limits", up="off")
        show_view(first, "events")
        first.get_by_role("cell", name="seeding", exact=True).first.wait_for()
        show_view(first, "group/lab")
        fill(first, "Invitations", uses="2")
        line = first.locator("dialog .mono").inner_text()
        assert line.startswith("mini-torrent join 'mini-torrent://")
        first.locator("dialog canvas.qr").wait_for()


def test_h136_names_of_others_are_texts(swarm: Swarm, browser: Any) -> None:
    cora = swarm.person("cora")
    group = cora.group_with()
    cora.share(swarm.file(1000), group, "--name", HOSTILE)
    with page_of(cora, browser) as page:
        show_view(page, f"group/{group}")
        page.get_by_text(HOSTILE).first.wait_for()
        assert page.title() == "Mini-Torrent"
        assert page.locator(".files img").count() == 0


def test_an_address_opens_one_page_only(swarm: Swarm, browser: Any) -> None:
    dora = swarm.person("dora")
    address = dora.json("web", "--no-browser")["address"]
    first, second = browser.new_context().new_page(), browser.new_context().new_page()
    first.goto(address)
    first.wait_for_selector("nav")
    assert "#s=" not in first.url
    second.goto(address)
    second.get_by_text("This page was opened before, or too long ago").wait_for()
    first.reload()  # the same tab keeps its session
    first.wait_for_selector("nav")


def test_every_view_tells_that_the_peer_has_ended(swarm: Swarm, browser: Any) -> None:
    erik = swarm.person("erik")
    page = browser.new_context().new_page()
    page.goto(erik.json("web", "--no-browser")["address"])
    page.wait_for_selector("nav")
    show_view(page, "device")
    page.get_by_role("heading", name="This device").wait_for()
    erik.ok("down")
    page.get_by_text("start it: mini-torrent up").wait_for()


def test_the_browser_opens_the_page_by_the_file_of_the_command(swarm: Swarm, browser: Any) -> None:
    gina = swarm.person("gina")
    address = gina.json("web", "--no-browser")["address"]
    with mock.patch("common.cli.browser._open", return_value=True) as opened:
        open_page(gina.home, address)
    page = browser.new_context().new_page()
    page.goto(opened.call_args[0][0])  # a browser takes it for another site
    page.wait_for_selector("nav")
    assert page.url.startswith("http://127.0.0.1:")


ATTACK = """
<title>attack</title><script type="module">
const told = [];
const attempt = async (what, options) => {
  try { const answer = await fetch(what, options); told.push(`${answer.type} ${answer.status}`); }
  catch (error) { told.push("refused"); }
};
const api = "%s/api/v1";
await attempt(api + "/groups");
const method = "POST", headers = {"Content-Type": "application/json"};
await attempt(api + "/groups", {method, headers, body: '{"group": "stolen"}'});
await attempt(api + "/groups", {method: "POST", mode: "no-cors", body: '{"group": "stolen"}'});
await attempt(api + "/down", {method: "POST", mode: "no-cors", body: "{}"});
const form = document.createElement("iframe"); form.src = "%s"; document.body.append(form);
form.onload = () => {
  try { told.push(form.contentDocument ? "blank" : "framed"); } catch { told.push("closed"); }
  document.title = told.join(",");
};
</script>
"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "evil.example"])
def test_h133_a_page_of_another_origin_cannot_attack_it(
    name: str, emil: Person, browser: Any, tmp_path: Path
) -> None:
    """A page of another port of this machine, and one of another name that leads here."""
    with page_of(emil, browser) as page:
        origin = page.evaluate("location.origin")
        (tmp_path / "index.html").write_text(ATTACK % (origin, origin))
        handler = partial(QuietHandler, directory=str(tmp_path))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            other = browser.new_context().new_page()
            other.goto(f"http://{name}:{server.server_port}/")
            wait_for(lambda: other.title() != "attack", "the end of the attack")
            told = other.title().split(",")
        finally:
            server.shutdown()
            server.server_close()
        assert told[:2] == ["refused", "refused"]
        assert told[4] in ("blank", "closed", "framed")
        assert "stolen" not in {row["group"] for row in emil.json("list-groups")}
        assert emil.status()["user"] == "emil"  # it still runs


def test_h172_a_name_that_an_attacker_points_here_gets_no_page(emil: Person, browser: Any) -> None:
    """DNS rebinding: the same port, by the name of the attacker's page."""
    with page_of(emil, browser) as page:
        port = page.evaluate("location.port")
        other = browser.new_context().new_page()
        for path in ("/", "/assets/app.js", "/api/v1/status"):
            answer = other.goto(f"http://evil.example:{port}{path}")
            assert answer.status == 421
            assert "set-cookie" not in answer.headers
        options = "{method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'}"
        attack = f"fetch('/api/v1/groups', {options}).then(found => found.status)"
        assert other.evaluate(attack) == 421


@pytest.fixture(scope="module")
def emil(swarm: Swarm) -> Person:
    return swarm.person("emil")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


FRAMES = """async (call) => {
  const times = [], act = new Function(`return ${call}`)();
  for (let last = performance.now(), at = 0; at < 60; at += 1) {
    act(at);
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times.sort((a, b) => a - b);
}"""


def frames(page: Any, what: str, act: str) -> None:
    """Print how long 60 frames took while ``act`` ran in each; nothing is asserted of them."""
    times = page.evaluate(FRAMES, act)
    slow = sum(time > 50 for time in times)
    print(f"{what}: median {times[30]:.0f} ms, worst {times[-1]:.0f} ms, {slow} of 60 above 50 ms")


def test_a_thousand_downloads_stay_smooth(swarm: Swarm, browser: Any) -> None:
    gerd = swarm.person("gerd")
    states = ("downloading", "paused", "failed", "complete")
    rounds = 0

    def answer(route: Any) -> None:
        nonlocal rounds
        rounds += 1
        rows = [
            {
                "state": states[at % 4],
                "group": "films",
                "name": f"film-{at:04}",
                "path": f"/d/film-{at:04}",
                "size_bytes": 1000,
                "verified_bytes": (at + 10 * rounds) % 1000,
                "rate_bytes_per_s": 1e6,
                "eta_s": 60,
                "sources": [],
                "reason": "the disk is full" if at % 4 == 2 else None,
                "version": 1,
            }
            for at in range(1000)
        ]
        route.fulfill(json=rows)

    with page_of(gerd, browser) as page:
        page.route("**/api/v1/downloads", answer)
        page.get_by_text("250 downloads running").wait_for()
        assert page.locator(".transfer").count() == 100
        frames(page, "1,000 downloads, scrolled", "(at) => scrollTo(0, 40 * at)")
        page.get_by_role("button", name="Show more (900)").click()
        wait_for(lambda: page.locator(".transfer").count() == 200, "more rows")
        seen = rounds
        frames(page, "200 of them, scrolled", "(at) => scrollTo(0, 90 * at)")
        wait_for(lambda: page.evaluate("true") and rounds > seen + 1, "further looks")


def test_ten_thousand_files_are_a_list_of_a_few_rows(swarm: Swarm, browser: Any) -> None:
    flora = swarm.person("flora")
    group = flora.group_with()
    with page_of(flora, browser) as page:
        row = {
            "size_bytes": 1,
            "files": 1,
            "pieces": 1,
            "piece_bytes": 1,
            "algorithm": "blake3",
            "digest": "00",
            "seeders": 1,
            "leechers": 0,
            "shared_by": ["flora"],
            "away": False,
            "version": 1,
        }
        rows = [{**row, "name": f"file-{at:05}"} for at in range(10_000)]
        page.route(f"**/groups/{group}/files", lambda route: route.fulfill(json=rows))
        show_view(page, f"group/{group}")
        page.get_by_text("10,000 shares").wait_for()
        assert page.locator(".file").count() < 60
        page.locator(".files").evaluate("node => { node.scrollTop = node.scrollHeight; }")
        page.get_by_text("file-09999").wait_for()
        frames(
            page,
            "10,000 files, scrolled",
            "(at) => document.querySelector('.files').scrollTo(0, 9000 * at)",
        )
        page.locator("section input").first.fill("file-00042")
        page.get_by_text("1 share", exact=True).wait_for()
