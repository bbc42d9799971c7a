"""Pasted links: clean-up, and the errors for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.ids import DeviceKey
from common.link import Tracker, parse_link, trackers_of
from peer.cli.up_options import checked

KEY = "Jz3dE-5Sx_" + "k" * 32 + "A"
LINK = f"mini-torrent://192.0.2.7:5000/{KEY}"
IPC = f"mini-torrent+ipc:///run/a b/t.sock/{KEY}"


@pytest.mark.parametrize(
    "typed",
    [
        LINK,
        f"  {LINK}\n",
        f"\u00a0{LINK}\u200b",
        f"'{LINK}'",
        f'"{LINK}"',
        f"“{LINK}”",
        f"«\u00a0{LINK}\u00a0»",
        f"<{LINK}>",
        f"(`{LINK}`).",
        f"{LINK},",
        LINK.replace("mini", "Mini"),
        LINK.replace("/J", "/\n  J"),
        LINK.replace("192.0", "192.\r\n0"),
        LINK.removeprefix("mini-torrent://"),
        f" '{LINK.removeprefix('mini-torrent://')}' ",
    ],
)
def test_the_intended_link_is_found(typed: str, tmp_path: Path) -> None:
    assert parse_link(typed).text == LINK
    assert checked({"tracker": typed}, str(tmp_path)) == {"tracker": LINK}
    assert [tracker.link for tracker in trackers_of(typed, tmp_path)] == [LINK]


@pytest.mark.parametrize(
    "link", [IPC, LINK.replace("192.0.2.7", "[2001:db8::7]"), LINK.replace("192.0.2.7", "a.b-c")]
)
def test_every_kind_of_link_stays_what_it_is(link: str) -> None:
    for typed in (link, f" {link} ", f"'{link}'"):
        assert parse_link(typed).text == link
    if not link.startswith("mini-torrent+ipc"):
        assert parse_link(link.removeprefix("mini-torrent://")).text == link


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (LINK[:-1], "the key has 42 characters and not 43: it was cut"),
        (LINK[:-9], "the key has 34 characters and not 43: it was cut"),
        (LINK + "A", "the key has 44 characters and not 43: something was added"),
        (LINK[:-1] + "B", "the key is damaged"),
        (LINK[:-3] + "~AA", "the key has a character that no key has: “~”"),
        (LINK[1:], "it begins with “ini-torrent://” and not with mini-torrent://"),
        (LINK.replace("mini-torrent", "http"), "it begins with “http://”"),
        (LINK.replace("://", ":/"), "it begins with"),
        (f"mini-torrent://192.0.2.7:5000/{''}", "the key is missing: it ends after the last /"),
        ("mini-torrent://192.0.2.7:5000", "the key is missing: it ends after the port"),
        ("mini-torrent://192.0.2.7", "the key is missing, or the / before it"),
        (f"mini-torrent://192.0.2.7/{KEY}", "the port is missing after the host “192.0.2.7”"),
        (f"mini-torrent://192.0.2.7:/{KEY}", "the port is missing after the host"),
        (f"mini-torrent:///{KEY}", "host and port are missing"),
        (f"mini-torrent://:5000/{KEY}", "the host is missing before the port"),
        (f"mini-torrent://192.0.2.7:99999/{KEY}", "is no host with a port"),
        (f"mini-torrent://192.0.2.777:5000/{KEY}", "is no host with a port"),
        (f"mini-torrent+ipc://{KEY}", "the key is missing, or the / before it"),
        ("mini-torrent://", "the key is missing"),
        (
            LINK.replace("/J", " /J"),
            "there is a blank in it, after “mini-torrent://192.0.2.7:5000”",
        ),
        ("  ", "it is empty"),
    ],
)
def test_the_error_names_the_exact_fault(typed: str, told: str, tmp_path: Path) -> None:
    for take in (parse_link, lambda text: checked({"tracker": text}, str(tmp_path))):
        with pytest.raises(ConfigError) as caught:
            take(typed)
        normal = caught.value.message.replace('"', "“", 1).replace('"', "”", 1)
        assert told in normal
        assert caught.value.hint is not None


def test_a_key_alone_is_named_as_such() -> None:
    with pytest.raises(ConfigError, match="it is the key alone"):
        parse_link(KEY)


def test_a_file_comes_before_a_link_of_that_name(tmp_path: Path) -> None:
    key = parse_link(LINK).key
    (tmp_path / "mini-torrent").write_text(f"192.0.2.7\n5000\n{KEY}\n")
    assert trackers_of("mini-torrent", tmp_path) == [Tracker("tcp://192.0.2.7:5000", key)]
    taken = checked({"tracker": " mini-torrent "}, str(tmp_path))
    assert taken == {"tracker": str(tmp_path / "mini-torrent")}
    assert key == DeviceKey(key)


def test_text_that_is_neither_link_nor_file_is_refused(tmp_path: Path) -> None:
    for typed in ("tracker_info.txt", "/no/such/file", "tracker.example"):
        with pytest.raises(ConfigError, match="neither a tracker's link nor a file"):
            checked({"tracker": typed}, str(tmp_path))
