"""The page of a tracker in a real browser: an operator's story, hostile names, and attacks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_page import HOSTILE, QuietHandler
from tests.support.browser import CHROMIUM, chromium, opened, show_view
from tests.support.processes import Swarm, operate
from tests.support.waiting import wait_for

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium, to test the page"
)
VIEWS = ("overview", "users", "devices", "groups", "shares", "load", "log")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@contextmanager
def page_of(swarm: Swarm, browser: Any, **options: Any) -> Iterator[Any]:
    address = operate(swarm.tracker.home, "web", "--no-browser")["address"]
    with opened(browser, address, **options) as page:
        assert "#s=" not in page.url
        yield page


def confirm(page: Any, user: str, action: str, done: str) -> None:
    """Press a button in the row of ``user``, and the one in the dialog."""
    row = page.locator("tr", has=page.get_by_role("rowheader", name=user, exact=True))
    row.get_by_role("button", name=action).click()
    page.locator("dialog form button").last.click()
    page.get_by_text(done).first.wait_for()


def test_h166_an_operator_looks_around_and_acts(swarm: Swarm, browser: Any) -> None:
    anna, bert = swarm.person("anna"), swarm.person("bert")
    group = anna.group_with(bert)
    anna.share(swarm.file(1000), group, "--name", HOSTILE)
    with page_of(swarm, browser, viewport={"width": 390, "height": 844}) as page:
        for view in VIEWS:
            show_view(page, view)
            heading = page.get_by_role("heading", level=1)
            wait_for(lambda: heading.inner_text().lower() == view, view)  # noqa: B023
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        page.get_by_text("serving at tcp://").wait_for()
        show_view(page, "load")
        page.locator(".plot canvas").first.wait_for()
        # Names of others are texts.
        show_view(page, "shares")
        page.get_by_text(HOSTILE).wait_for()
        show_view(page, f"group/{group}")
        page.get_by_text(HOSTILE).wait_for()
        assert page.locator("main img").count() == 0
        assert page.title() == "Mini-Torrent tracker"

        show_view(page, "users")
        confirm(page, "bert", "Disable", "bert is disabled")
        wait_for(lambda: bert.status()["user"] is None, "the end of the login")
        page.get_by_role("button", name="Enable").click()
        wait_for(lambda: bert.status()["user"] == "bert", "the return")
        confirm(page, "bert", "New password", "New password of bert")
        password = page.locator(".secret").inner_text()
        page.keyboard.press("Escape")
        bert.ok("login", "bert", password)
        confirm(page, "bert", "Delete", "bert is deleted")
        wait_for(
            lambda: len(operate(swarm.tracker.home, "list-users")) == 1, "the end of the account"
        )

        show_view(page, "overview")
        page.get_by_text("There is no backup yet").wait_for()
        backup = swarm.root / "backup.db"
        page.locator("[name=file]").fill(str(backup))
        page.get_by_role("button", name="Back up").click()
        wait_for(backup.exists, "the backup")
        page.get_by_label("Who may make an account").select_option("closed")
        wait_for(
            lambda: operate(swarm.tracker.home, "registration")["registration"] == "closed",
            "the registration",
        )
        operate(swarm.tracker.home, "registration", "open")


def test_f161_the_page_tells_that_the_tracker_has_ended(swarm: Swarm, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(operate(swarm.tracker.home, "web", "--no-browser")["address"])
    page.wait_for_selector("nav")
    assert swarm.tracker.end() == 0  # also while a page is open
    page.get_by_text("the tracker does not answer").first.wait_for()
    swarm.tracker.start()
    context.close()


ATTACK = """
<title>attack</title><script type="module">
const told = [];
const attempt = async (what, options) => {
  try { const answer = await fetch(what, options); told.push(`${answer.type} ${answer.status}`); }
  catch (error) { told.push("refused"); }
};
const api = "%s/api/v1", method = "POST", headers = {"Content-Type": "application/json"};
await attempt(api + "/users");
await attempt(api + "/users/anna/disabled", {method, headers, body: '{"disabled": true}'});
await attempt(api + "/stop", {method, mode: "no-cors", body: "{}"});
await attempt(api + "/session", {method, mode: "no-cors", body: '{"secret": "x"}'});
const frame = document.createElement("iframe"); frame.src = "%s"; document.body.append(frame);
frame.onload = () => { document.title = told.join(","); };
</script>
"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"], ids=["another port", "another origin"])
def test_h167_a_page_of_another_port_or_origin_cannot_attack_it(
    swarm: Swarm, browser: Any, tmp_path: Path, name: str
) -> None:
    with page_of(swarm, browser) as page:
        origin = page.evaluate("location.origin")
        (tmp_path / "index.html").write_text(ATTACK % (origin, origin))
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            other = page.context.new_page()  # beside the page, with all that the browser keeps
            other.goto(f"http://{name}:{server.server_port}/")
            wait_for(lambda: other.title() != "attack", "the end of the attack")
            told = other.title().split(",")
            framed = [frame.url for frame in other.frames[1:]]
        finally:
            server.shutdown()
            server.server_close()
        assert told[:2] == ["refused", "refused"]
        assert framed == ["chrome-error://chromewebdata/"]
        assert operate(swarm.tracker.home, "status")["running"]
        assert not any(row["disabled"] for row in operate(swarm.tracker.home, "list-users"))
        show_view(page, "users")
        page.get_by_role("heading", name="Users").wait_for()
