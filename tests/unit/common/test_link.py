"""Links, endpoints, and the original's tracker_info.txt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.keys import key_text
from common.errors import ConfigError
from common.ids import DeviceKey
from common.link import (
    Link,
    Tracker,
    add_key,
    as_endpoint,
    check_endpoint,
    check_source,
    links_of,
    parse_link,
    read_info,
    trackers_of,
)

KEY = DeviceKey(bytes(range(32)))
TEXT = key_text(KEY)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://192.0.2.1:5000",
        "tcp://tracker.example.org:1",
        "tcp://[2001:db8::1]:65535",
        "ipc:///run/user/1000/t.sock",
        "ipc:///with a space/t",
    ],
)
def test_a_link_is_read_as_it_was_written(endpoint: str) -> None:
    tracker = Tracker(endpoint, KEY)
    assert parse_link(tracker.link) == Link((endpoint,), KEY)


def test_a_link_may_have_several_addresses_of_one_key(tmp_path: Path) -> None:
    endpoints = ("tcp://192.0.2.1:5000", "tcp://two.example:5000", "tcp://[2001:db8::1]:5001")
    link = Link(endpoints, KEY)
    assert link.text == f"mini-torrent://192.0.2.1:5000,two.example:5000,[2001:db8::1]:5001/{TEXT}"
    assert parse_link(link.text) == link
    assert trackers_of(link.text) == [Tracker(endpoint, KEY) for endpoint in endpoints]
    assert links_of(trackers_of(link.text)) == [link]
    again = f"mini-torrent://192.0.2.1:5000,192.0.2.1:5000/{TEXT}"
    assert parse_link(again) == Link(endpoints[:1], KEY)
    info = tmp_path / "tracker_info.txt"
    info.write_text(f"192.0.2.1\n5000\n{TEXT}\n192.0.2.2\n5000\n{TEXT}\n")
    assert links_of(trackers_of(str(info))) == [
        Link(("tcp://192.0.2.1:5000", "tcp://192.0.2.2:5000"), KEY)
    ]


@pytest.mark.parametrize(
    ("addresses", "fault"),
    [
        ("192.0.2.1:5000,", "an address is missing beside a comma"),
        (",192.0.2.1:5000", "an address is missing beside a comma"),
        ("192.0.2.1:5000,two", "the port is missing after the host .two."),
        ("192.0.2.1:5000,:5000", "the host is missing before the port"),
        (",".join(f"192.0.2.{n}:5000" for n in range(17)), "it has more than 16 addresses"),
    ],
)
def test_faults_in_one_of_several_addresses_are_named(addresses: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_link(f"mini-torrent://{addresses}/{TEXT}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mini-torrent://",
        f"mini-torrent://127.0.0.1/{TEXT}",
        f"mini-torrent://127.0.0.1:0/{TEXT}",
        f"mini-torrent://127.0.0.1:65536/{TEXT}",
        f"mini-torrent://999.0.0.1:5000/{TEXT}",
        f"mini-torrent://[::zz]:5000/{TEXT}",
        f"mini-torrent://*:5000/{TEXT}",
        f"mini-torrent://-bad:5000/{TEXT}",
        f"mini-torrent://a b:5000/{TEXT}",
        f"mini-torrent://127.0.0.1:5000/{TEXT[:-1]}",
        f"mini-torrent://127.0.0.1:5000/{TEXT}/",
        f"mini-torrent+ipc://relative/{TEXT}",
        f"mini-torrent+ipc:///{'x' * 101}/{TEXT}",
        f"tcp://127.0.0.1:5000/{TEXT}",
    ],
)
def test_invalid_links_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_link(text)


OTHER_DIGITS = ["\uff15\uff10\uff10\uff10", "\u0665\u0660", "5\u0966", "\u00b2"]


@pytest.mark.parametrize("port", [*OTHER_DIGITS, "0", "65536", "99999", "", "-1", "1e3"])
def test_h51_a_port_is_a_number_in_plain_digits(port: str) -> None:
    for read in (check_endpoint, check_source):
        with pytest.raises(ConfigError):
            read(f"tcp://192.0.2.1:{port}")
    with pytest.raises(ConfigError):
        parse_link(f"mini-torrent://192.0.2.1:{port}/{TEXT}")


@pytest.mark.parametrize("port", OTHER_DIGITS)
def test_a_listening_port_is_plain_digits(port: str) -> None:
    for typed in (port, f"192.0.2.1:{port}"):
        with pytest.raises(ConfigError):
            as_endpoint(typed)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://192.0.2.1:1",
        "tcp://127.0.0.1:65535",
        "tcp://[2001:db8::1]:5000",
        "tcp://[::1]:5000",
        "tcp://[::ffff:192.0.2.1]:5000",
        "ipc:///run/user/1000/p.sock",
    ],
)
def test_an_address_may_be_announced(endpoint: str) -> None:
    assert check_source(endpoint) == endpoint


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "slow.example.org", "h", "127.0.0.1.", "0x7f000001", "2130706433", "127.1",
        "*", "0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]", "[fe80::1%eth0]", "[fe80::1%251]",
        "255.255.255.255", "[::ffff:255.255.255.255]",
        "[1.2.3.4]", "[::ffff:0.0.0.0]", "2001:db8::1", "192.0.2.1;192.0.2.2", "eth0;192.0.2.2",
    ],
)  # fmt: skip
def test_h50_others_are_told_addresses_and_never_names(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_source(f"tcp://{host}:5000")
    assert caught.value.hint


@pytest.mark.parametrize("port", ["080", "00", "05000", "00001"])
def test_a_port_has_one_form(port: str) -> None:
    for wildcard in (False, True):
        with pytest.raises(ConfigError, match="not a port"):
            check_endpoint(f"tcp://192.0.2.1:{port}", wildcard=wildcard)


def test_an_announced_name_has_its_own_refusal() -> None:
    with pytest.raises(ConfigError, match="a name and not an IP address") as caught:
        check_source("tcp://peer.example.org:5000")
    assert caught.value.hint is not None
    assert "tcp://IP:PORT" in caught.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_link_or_an_error_in_words(text: str) -> None:
    for read in (parse_link, check_endpoint, check_source, as_endpoint):
        try:
            read(text)
        except ConfigError:
            pass


@pytest.mark.parametrize(
    ("typed", "endpoint"),
    [
        ("18000", "tcp://127.0.0.1:18000"),
        ("127.0.0.1:18000", "tcp://127.0.0.1:18000"),
        ("tcp://*:0", "tcp://*:0"),
        ("0.0.0.0:0", "tcp://0.0.0.0:0"),
        ("ipc:///tmp/x", "ipc:///tmp/x"),
    ],
)
def test_a_listening_address_may_be_typed_shortly(typed: str, endpoint: str) -> None:
    assert as_endpoint(typed) == endpoint


def info(folder: Path, text: str) -> Path:
    path = folder / "tracker_info.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_several_trackers_in_a_file(tmp_path: Path) -> None:
    path = info(
        tmp_path,
        f"# the first\n192.0.2.1\n5000\n{TEXT}\n\n192.0.2.2 # the second\n 5001 \n"
        f"2001:db8::1\n5002\n{TEXT}\nhost.example\n5003\n",
    )
    entries = read_info(path)
    assert [(entry.endpoint, entry.key is not None, entry.line) for entry in entries] == [
        ("tcp://192.0.2.1:5000", True, 2),
        ("tcp://192.0.2.2:5001", False, 6),
        ("tcp://[2001:db8::1]:5002", True, 8),
        ("tcp://host.example:5003", False, 11),
    ]
    assert [tracker.endpoint for tracker in trackers_of(str(path))] == [
        "tcp://192.0.2.1:5000",
        "tcp://[2001:db8::1]:5002",
    ]
    assert trackers_of("tracker_info.txt", tmp_path) == trackers_of(str(path))


def test_a_file_from_another_system(tmp_path: Path) -> None:
    path = tmp_path / "tracker_info.txt"
    path.write_bytes(f"\ufeff192.0.2.1\r\n5000\r\n{TEXT}\r\n".encode())
    assert trackers_of(str(path)) == [Tracker("tcp://192.0.2.1:5000", KEY)]


def test_a_key_is_added_where_it_belongs(tmp_path: Path) -> None:
    path = info(tmp_path, "# ours\n192.0.2.1\n5000\n\n192.0.2.2\n5001\n# the end")
    add_key(path, read_info(path)[1], KEY)
    add_key(path, read_info(path)[0], KEY)
    assert path.read_text() == (
        f"# ours\n192.0.2.1\n5000\n{TEXT}\n\n192.0.2.2\n5001\n{TEXT}\n# the end\n"
    )
    assert [entry.key for entry in read_info(path)] == [KEY, KEY]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("192.0.2.1", 1),
        ("192.0.2.1\n5000\n192.0.2.2\n", 3),
        ("192.0.2.1\nport\n", 2),
        ("192.0.2.1\n0\n", 2),
        ("192.0.2.1\n65536\n", 2),
        ("a b\n5000\n", 1),
        ("\n\n1.2.3.4.5\n5000\n", 3),
        (f"192.0.2.1\n5000\n{'A' * 42}!\n", 3),
        (f"192.0.2.1\n5000\n{TEXT}x\n", 3),
    ],
)
def test_the_line_that_is_wrong_is_named(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"line {line}\b"):
        read_info(info(tmp_path, text))


@pytest.mark.parametrize(
    "text", ["192.0.2.1:5000\n", "192.0.2.1 5000\n", "[::1]:5000\n192.0.2.1\n", "a.b:1\n5000\n"]
)
def test_an_ip_and_a_port_in_one_line_are_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"line 1: the port of '.*' belongs in the next line"
    ) as e:
        read_info(info(tmp_path, text))
    assert e.value.hint is not None
    assert "three lines" in e.value.hint


def test_invalid_tracker_info_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_info(tmp_path / "missing")
    with pytest.raises(ConfigError, match="names no tracker"):
        read_info(info(tmp_path, "# nothing\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        read_info(tmp_path / "binary")


def test_a_file_in_which_no_entry_has_a_key_is_refused(tmp_path: Path) -> None:
    path = info(tmp_path, "192.0.2.1\n5000\n")
    with pytest.raises(ConfigError, match="has no key line"):
        trackers_of(str(path))
