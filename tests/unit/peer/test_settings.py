"""Settings of a peer: what is stored, loaded and refused."""

from __future__ import annotations

import itertools
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import ConfigError
from peer.hooks.commands import HookSettings
from peer.settings import FILE, HttpSettings, Settings, load, save

LINK = "mini-torrent://127.0.0.1:5000/" + "A" * 43


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(tracker=LINK, listen="tcp://127.0.0.1:5100", advertise="192.0.2.8"),
        Settings(tracker='/a "path"\\with\ttabs\x7f and ünïcode/tracker_info.txt'),
        Settings(hooks=HookSettings(complete=["/bin/true", "$x"], share="logger 'a b'")),
        Settings(upload_limit=1, bulk=False, bulk_port=65535, keep_times=False, log_json=True),
    ],
)
def test_stored_settings_are_loaded_again(tmp_path: Path, settings: Settings) -> None:
    save(tmp_path, settings)
    assert load(tmp_path) == settings


def test_defaults_are_not_stored(tmp_path: Path) -> None:
    save(tmp_path, Settings(tracker=LINK, bulk=False))
    assert tomllib.loads((tmp_path / FILE).read_text()) == {"tracker": LINK, "bulk": False}


def test_a_setting_back_at_its_default_is_removed(tmp_path: Path) -> None:
    save(tmp_path, Settings(upload_limit=9))
    save(tmp_path, Settings())
    assert (tmp_path / FILE).read_text() == ""


WRITTEN = """# limits of the laboratory, ask Ann
download_limit = 7  # at night more

bulk = false
[http]
# for the exporter
on = true

[hooks]
complete = ["/bin/true"]  # see the wiki
"""


def test_comments_and_order_of_an_edited_file_stay(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(WRITTEN)
    save(tmp_path, load(tmp_path).overridden(download_limit=8, tracker=LINK))
    text = (tmp_path / FILE).read_text()
    assert load(tmp_path) == Settings(
        tracker=LINK,
        download_limit=8,
        bulk=False,
        http=HttpSettings(on=True),
        hooks=HookSettings(complete=["/bin/true"]),
    )
    lines = [line for line in text.splitlines() if line and not line.startswith("tracker")]
    assert lines == [line for line in WRITTEN.replace("= 7", "= 8").splitlines() if line]


def test_any_settings_can_follow_any_others_in_an_edited_file(tmp_path: Path) -> None:
    every = [
        Settings(),
        Settings(tracker=LINK, by_hand_until=datetime(2026, 1, 2, tzinfo=UTC)),
        Settings(http=HttpSettings(metrics_groups=False)),
        Settings(hooks=HookSettings(share=["/bin/true"]), schedule="00:00,1M 12:00,off"),
    ]
    for first, second in itertools.product(every, every):
        (tmp_path / FILE).write_text(WRITTEN)
        for settings in (first, second):
            save(tmp_path, settings)
            assert load(tmp_path) == settings


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("colour = 1", "there is no setting 'colour'"),
        ('upload_limit = "much"', "upload_limit cannot be 'much'"),
        ("upload_limit = -1", "upload_limit cannot be -1"),
        ("upload_limit = 1.5", "upload_limit cannot be 1.5"),
        ("upload_limit = true", "upload_limit cannot be True"),
        ("bulk_port = 65536", "bulk_port cannot be 65536"),
        ("bulk = 1", "bulk cannot be 1"),
        ("tracker = 5", "tracker cannot be 5"),
        ("hooks = 5", "hooks cannot be 5"),
        ("[hooks]\nfinished = 'x'", "unknown field `finished`"),
        ("[hooks]\ncomplete = 5", "hooks cannot be"),
        ("[hooks]\ncomplete = [5]", "hooks cannot be"),
        ('[hooks]\ncomplete = "it\'s"', "cannot be split"),
        ("[hooks]\ncomplete = ['']", "the name of the program is empty"),
        ('[hooks]\ncomplete = ["a", "\\u0000"]', "zero byte"),
        ("[hooks]\ntime_limit_s = 0", "hooks cannot be"),
        ("tracker", "Expected"),
    ],
)
def test_invalid_settings_are_named(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / FILE).write_text(line)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FILE}: ")
    assert fault in str(caught.value)


def test_only_given_options_override(tmp_path: Path) -> None:
    settings = Settings(tracker=LINK, upload_limit=9)
    assert settings.overridden(tracker=None, upload_limit=0) == Settings(tracker=LINK)
