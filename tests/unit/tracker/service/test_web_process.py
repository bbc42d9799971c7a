"""Settings of the web process, from options and from tracker.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import CannotListen, ConfigError
from common.http.binding import bind_address
from tracker.cli_options import http_section
from tracker.service.web_process import WebSettings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"api": True, "origin": "tracker"}, "the origin 'tracker' is invalid"),
        ({"api": True, "origin": "https://x/path"}, "is invalid"),
        ({"api": True, "origin": "https://X"}, "is invalid"),
        ({"origin": "https://tracker.example.org"}, "an origin needs the API"),
    ],
)
def test_an_origin_is_one_that_a_browser_sends(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        WebSettings(**settings)
    assert WebSettings(api=True, origin="https://tracker.example.org:8443").api


@pytest.mark.parametrize(
    "address", ["", "9100", ":9100", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "h:\u0661"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ConfigError, match="is invalid") as found:
        bind_address(address)
    assert found.value.hint == "write HOST:PORT: 127.0.0.1:9100"


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen at 192\.0\.2\.1:9"):
        bind_address("192.0.2.1:9")
    with bind_address("[::1]:0") as bound:
        assert bound.getsockname()[0] == "::1"


def test_the_section_of_the_file_has_two_options() -> None:
    path = Path("tracker.toml")
    found = http_section(path, {"on": True, "origin": "https://x"})
    assert found == {"http": True, "http_origin": "https://x"}
    assert http_section(path, {}) == {}
    for wrong, reason in (
        ({"on": 1}, "on must be true or false"),
        ({"origin": True}, "origin must be a text"),
        ({"port": 80}, "no option 'port'"),
        (3, "is no section"),
    ):
        with pytest.raises(ConfigError, match=reason):
            http_section(path, wrong)
