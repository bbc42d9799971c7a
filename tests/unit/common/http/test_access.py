"""Rights of HTTP requests: Host, Origin, one-time secrets and session tokens."""

from __future__ import annotations

import pytest

from common import limits
from common.http.access import UNIX_HOSTS, Access, Sessions

HOST = "127.0.0.1:4321"
JSON = {"content-type": "application/json"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


def page(sessions: Sessions) -> Access:
    return Access(frozenset({HOST}), sessions)


class TestSessions:
    def test_a_secret_is_exchanged_once(self, sessions: Sessions) -> None:
        secret = sessions.new_secret()
        token = sessions.redeem(secret)
        assert token is not None
        assert sessions.is_valid(token)
        assert sessions.redeem(secret) is None
        assert not sessions.is_valid(secret)

    def test_a_secret_expires(self, sessions: Sessions, clock: Clock) -> None:
        secret = sessions.new_secret()
        clock.now_s = limits.PAGE_SECRET_S
        assert sessions.redeem(secret) is None

    def test_an_idle_session_ends_and_a_used_one_does_not(
        self, sessions: Sessions, clock: Clock
    ) -> None:
        used, idle = (sessions.redeem(sessions.new_secret()) for _ in range(2))
        assert used
        assert idle
        clock.now_s = limits.PAGE_IDLE_S * 0.75
        assert sessions.is_valid(used)
        clock.now_s = limits.PAGE_IDLE_S * 1.5
        assert sessions.is_valid(used)
        assert not sessions.is_valid(idle)

    def test_sessions_are_bounded_and_the_oldest_ends(
        self, sessions: Sessions, clock: Clock
    ) -> None:
        tokens = []
        for at in range(limits.PAGE_SESSIONS_MAX + 1):
            clock.now_s = float(at)
            tokens.append(sessions.redeem(sessions.new_secret()) or "")
        assert not sessions.is_valid(tokens[0])
        assert all(map(sessions.is_valid, tokens[1:]))

    def test_an_ended_session_is_not_valid(self, sessions: Sessions) -> None:
        token = sessions.redeem(sessions.new_secret()) or ""
        sessions.end(token)
        assert not sessions.is_valid(token)

    @pytest.mark.parametrize("text", ["", "x", "\ud800", "é" * 1000])
    def test_nonsense_is_no_secret_and_no_token(self, sessions: Sessions, text: str) -> None:
        assert sessions.redeem(text) is None
        assert not sessions.is_valid(text)


class TestHost:
    @pytest.mark.parametrize(
        "host",
        ["", "evil.example", "127.0.0.1", "127.0.0.1:80", "localhost.evil:4321", f"{HOST}.x"],
    )
    def test_h132_another_host_is_refused(self, sessions: Sessions, host: str) -> None:
        denied = page(sessions).check_host({"host": host})
        assert denied is not None
        assert denied.status == 421
        assert page(sessions).check_host({}) is not None

    def test_its_own_host_is_admitted(self, sessions: Sessions) -> None:
        assert page(sessions).check_host({"host": HOST}) is None
        assert Access(UNIX_HOSTS, None).check_host({"host": "localhost"}) is None


OWN = {"host": HOST, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin", **JSON}


class TestSite:
    def test_the_page_itself_may_write(self, sessions: Sessions) -> None:
        assert page(sessions).check_site("POST", OWN) is None

    @pytest.mark.parametrize(
        "changed",
        [
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:4322"},  # another port of this machine
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
            {"content-type": ""},
        ],
    )
    @pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
    def test_h133_a_write_from_elsewhere_is_refused(
        self, sessions: Sessions, method: str, changed: dict[str, str]
    ) -> None:
        assert page(sessions).check_site(method, {**OWN, **changed}) is not None

    def test_h133_a_write_without_an_origin_is_refused(self, sessions: Sessions) -> None:
        assert page(sessions).check_site("POST", {"host": HOST, **JSON}) is not None

    def test_h133_a_read_for_another_site_is_refused(self, sessions: Sessions) -> None:
        access = page(sessions)
        assert access.check_site("GET", {"host": HOST, "sec-fetch-site": "cross-site"}) is not None
        assert access.check_site("GET", {"host": HOST, "origin": "http://x"}) is not None
        assert access.check_site("GET", {"host": HOST, "sec-fetch-site": "none"}) is None

    def test_a_user_may_come_to_the_page_from_anywhere(self, sessions: Sessions) -> None:
        access = page(sessions)
        coming = {
            "host": HOST,
            "sec-fetch-site": "cross-site",  # as from a file of this machine
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "document",
        }
        assert access.check_site("GET", coming, public=True) is None
        assert access.check_site("GET", coming) is not None
        assert access.check_site("POST", {**coming, **JSON}, public=True) is not None
        for changed in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors"}):
            assert access.check_site("GET", {**coming, **changed}, public=True) is not None

    def test_h133_a_browser_has_no_access_to_the_unix_socket(self) -> None:
        access = Access(UNIX_HOSTS, None)
        assert access.check_site("GET", {"origin": "http://localhost"}) is not None
        assert access.check_site("POST", JSON) is None


class TestToken:
    def test_h134_each_request_needs_the_token(self, sessions: Sessions) -> None:
        access, token = page(sessions), sessions.redeem(sessions.new_secret())
        assert access.check_token({"authorization": f"Bearer {token}"}) is None
        for wrong in ("", "Bearer", "Bearer ", "Bearer x", f"Basic {token}", f"Bearer {token}x"):
            denied = access.check_token({"authorization": wrong})
            assert denied is not None
            assert denied.status == 401
        assert access.check_token({"cookie": f"token={token}"}) is not None

    def test_the_unix_socket_needs_none(self) -> None:
        assert Access(UNIX_HOSTS, None).check_token({}) is None
