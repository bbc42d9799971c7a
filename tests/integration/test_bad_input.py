"""Bad input gets one clear line, the right exit code, and changes nothing."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.crypto.keys import key_text, new_pair
from tests.support.descriptors import readable
from tests.support.processes import TRACKER, Person, Swarm, run_program
from tests.support.waiting import wait_for

COMMANDS = [
    ("status",),
    ("down",),
    ("create-user", "someone", "password"),
    ("login", "someone", "password"),
    ("logout",),
    ("create-group", "group"),
    ("join-group", "group"),
    ("leave-group", "group"),
    ("list-groups",),
    ("list-requests", "group"),
    ("accept-request", "group", "someone"),
    ("reject-request", "group", "someone"),
    ("list-members", "group"),
    ("remove-member", "group", "someone"),
    ("upload-file", "/etc/hostname", "group"),
    ("list-files", "group"),
    ("download-file", "group", "name", "/tmp"),
    ("show-downloads",),
    ("stop-share", "group", "name"),
    ("watch", "group"),
]
NEED_LOGIN = [words for words in COMMANDS if words[0] not in ("status", "down", "create-user")]
HERE = {"show-downloads", "login", "logout"}


@pytest.fixture(scope="module")
def quiet_swarm() -> Iterator[Swarm]:
    """A tracker alone: what is wrong here is wrong over any transport."""
    made = Swarm()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def stranger(quiet_swarm: Swarm) -> Person:
    """A peer that runs, without a user."""
    return quiet_swarm.person("stranger", log_in=False)


@pytest.fixture(scope="module")
def dave(quiet_swarm: Swarm) -> Person:
    """A person who is logged in."""
    return quiet_swarm.person("dave")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_no_peer_runs(quiet_swarm: Swarm, words: tuple[str, ...]) -> None:
    person = Person(quiet_swarm, "person")
    assert str(person.home) in person.refused(*words, code=3)
    assert not person.home.exists()


@pytest.mark.parametrize(
    "words", [w for w in NEED_LOGIN if w[0] not in HERE], ids=lambda words: words[0]
)
def test_no_user_is_logged_in(stranger: Person, words: tuple[str, ...]) -> None:
    assert "logged in" in stranger.refused(*words)
    ran = stranger.run("--json", *words)
    assert '"code": "not-logged-in"' in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("list-requests", "nosuch"),
        ("accept-request", "nosuch", "someone"),
        ("list-members", "nosuch"),
        ("leave-group", "nosuch"),
        ("join-group", "nosuch"),
        ("upload-file", "/etc/hostname", "nosuch"),
        ("list-files", "nosuch"),
        ("download-file", "nosuch", "name", "/tmp"),
        ("stop-share", "nosuch", "name"),
        ("watch", "nosuch"),
    ],
    ids=lambda words: words[0],
)
def test_an_unknown_group(dave: Person, words: tuple[str, ...]) -> None:
    assert "nosuch" in dave.refused(*words)


def test_an_unknown_file(quiet_swarm: Swarm, dave: Person) -> None:
    group = dave.group_with()
    dest = quiet_swarm.folder()
    before = dave.json("show-downloads")
    assert "nosuch.bin" in dave.refused("download-file", group, "nosuch.bin", dest)
    assert "nosuch.bin" in dave.refused("stop-share", group, "nosuch.bin")
    assert dave.json("show-downloads") == before
    assert list(dest.iterdir()) == []


@pytest.mark.parametrize(
    "bad", ["", "a b", "-x", ".x", "x" * 65, "a/b", "grüße", "a\nb", "../x", "a\x1b[2J"]
)
def test_malformed_ids(dave: Person, bad: str) -> None:
    before = dave.json("list-groups")
    for words in (
        ("create-user", "--", bad, "password"),
        ("login", "--", bad, "password"),
        ("create-group", "--", bad),
        ("join-group", "--", bad),
    ):
        said = dave.refused(*words, code=2)
        assert "\x1b" not in said
    assert dave.json("list-groups") == before
    assert dave.status()["user"] == "dave"


class TestSharing:
    def test_a_file_that_is_missing(self, quiet_swarm: Swarm, dave: Person) -> None:
        group = dave.group_with()
        path = quiet_swarm.folder() / "missing.bin"
        assert "missing.bin" in dave.refused("upload-file", path, group)
        assert dave.json("list-files", group) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_cannot_be_read(self, quiet_swarm: Swarm, dave: Person) -> None:
        group = dave.group_with()
        path = quiet_swarm.file(10)
        path.chmod(0)
        assert path.name in dave.refused("upload-file", path, group)
        assert dave.json("list-files", group) == []

    @pytest.mark.parametrize("kind", ["fifo", "socket", "device", "link to nothing"])
    def test_paths_that_are_no_file(self, quiet_swarm: Swarm, dave: Person, kind: str) -> None:
        group = dave.group_with()
        path = quiet_swarm.folder() / "odd"
        with socket.socket(socket.AF_UNIX) as listening:
            match kind:
                case "fifo":
                    os.mkfifo(path)
                case "socket":
                    listening.bind(str(path))
                case "device":
                    path = Path("/dev/null")
                case _:
                    path.symlink_to(path.parent / "none")
            assert path.name in dave.refused("upload-file", path, group)
        assert dave.json("list-files", group) == []

    def test_a_path_that_is_empty(self, quiet_swarm: Swarm, dave: Person) -> None:
        group = dave.group_with()
        before = dave.json("list-files", group)
        assert "path is empty" in dave.refused("upload-file", "", group, code=2)
        assert "path is empty" in dave.refused("download-file", group, "film", "", code=2)
        assert dave.json("list-files", group) == before

    @pytest.mark.parametrize("size", ["1K", "8M", "100000", "-1", "x", "0"])
    def test_a_piece_size_that_cannot_be(self, dave: Person, size: str) -> None:
        dave.refused("upload-file", "/etc/hostname", "any", "--piece-size", size, code=2)

    def test_a_digest_that_there_is_not(self, dave: Person) -> None:
        dave.refused("upload-file", "/etc/hostname", "any", "--digest", "md5", code=2)

    @pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a\x00b", "tab\there", "x" * 300])
    def test_a_name_that_cannot_be(self, quiet_swarm: Swarm, dave: Person, name: str) -> None:
        group = dave.group_with()
        ran = dave.run("upload-file", quiet_swarm.file(10), group, "--name", name)
        assert ran.code in (1, 2), str(ran)
        assert dave.json("list-files", group) == []


@pytest.fixture(scope="module")
def group(quiet_swarm: Swarm, dave: Person) -> str:
    """A group in which Dave shares a film."""
    group = dave.group_with()
    dave.share(quiet_swarm.file(100_000, "film"), group)
    return group


@pytest.fixture(scope="module")
def erin(quiet_swarm: Swarm, dave: Person, group: str) -> Person:
    """A member of that group."""
    erin = quiet_swarm.person("erin")
    dave.let_in(group, erin)
    return erin


class TestDownloading:
    def test_a_destination_that_is_there(
        self, quiet_swarm: Swarm, erin: Person, group: str
    ) -> None:
        dest = quiet_swarm.folder()
        (dest / "film").write_bytes(b"mine")
        for words in ((dest,), (dest / "film",)):
            assert "film" in erin.refused("download-file", group, "film", *words)
        (dest / "linked").symlink_to(dest / "none" / "none")
        erin.refused("download-file", group, "film", dest / "linked")
        assert (dest / "film").read_bytes() == b"mine"
        assert {entry.name for entry in dest.iterdir()} == {"film", "linked"}
        assert erin.json("show-downloads") == []

    @pytest.mark.parametrize("kind", ["fifo", "file as a folder", "device"])
    def test_a_destination_of_another_kind(
        self, quiet_swarm: Swarm, erin: Person, group: str, kind: str
    ) -> None:
        dest = quiet_swarm.folder()
        (dest / "file").write_bytes(b"mine")
        os.mkfifo(dest / "fifo")
        paths = {"fifo": dest / "fifo", "file as a folder": dest / "file" / "x"}
        erin.refused("download-file", group, "film", paths.get(kind, Path("/dev/full")))
        assert erin.json("show-downloads") == []
        assert (dest / "file").read_bytes() == b"mine"

    def test_a_destination_that_cannot_be_written_to(self, erin: Person, group: str) -> None:
        # Not even root may make files there.
        erin.refused("download-file", group, "film", "/proc/film")
        assert erin.json("show-downloads") == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_the_right_to_write(
        self, quiet_swarm: Swarm, erin: Person, group: str
    ) -> None:
        dest = quiet_swarm.folder()
        dest.chmod(0o500)
        assert str(dest) in erin.refused("download-file", group, "film", dest)
        assert erin.json("show-downloads") == []

    @pytest.mark.parametrize("name", ["", "x" * 300, "a/b"])
    def test_a_name_that_nothing_can_bear(
        self, quiet_swarm: Swarm, erin: Person, group: str, name: str
    ) -> None:
        said = erin.refused("download-file", group, name, quiet_swarm.folder(), code=2)
        assert "is not allowed" in said

    def test_a_path_of_endless_length(self, erin: Person, group: str) -> None:
        erin.refused("download-file", group, "film", "d/" * 3000 + "x", code=2)

    def test_a_way_of_picking_that_there_is_not(self, erin: Person, group: str) -> None:
        erin.refused("download-file", group, "film", "/tmp", "--pick", "best", code=2)

    def test_two_downloads_to_one_place(
        self, quiet_swarm: Swarm, dave: Person, erin: Person, group: str
    ) -> None:
        dave.share(quiet_swarm.file(100_000, "other film"), group)
        dest = quiet_swarm.folder() / "place"
        erin.fetch(group, "film", dest)
        before = dest.read_bytes()
        erin.refused("download-file", group, "other film", dest)
        assert dest.read_bytes() == before


class TestTheTracker:
    def test_one_that_cannot_be_reached(self, quiet_swarm: Swarm) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))  # and never listens
            port = listening.getsockname()[1]
            person = Person(quiet_swarm, "far")
            person.up(tracker=f"mini-torrent://127.0.0.1:{port}/{key_text(new_pair().public)}")
            status = person.status()
            assert (status["connected"], status["user"]) == (False, None)
            for words in (
                ("create-user", "far", "password"),
                ("login", "far", "password"),
                ("list-groups",),
                ("create-group", "group"),
            ):
                assert str(port) in person.refused(*words, code=4)
            assert '"code": "unreachable"' in person.run("--json", "list-groups").err
            person.ok("show-downloads")
            person.down()

    def test_one_that_has_another_key(self, quiet_swarm: Swarm) -> None:
        address = quiet_swarm.tracker.link.rpartition("/")[0]
        person = Person(quiet_swarm, "mistaken")
        person.up(tracker=f"{address}/{key_text(new_pair().public)}")
        assert "key" in person.refused("list-groups", code=4)
        assert person.status()["connected"] is False
        person.down()

    @pytest.mark.parametrize(
        "link",
        [
            "mini-torrent://127.0.0.1:5000",
            "mini-torrent://127.0.0.1:5000/",
            "mini-torrent://127.0.0.1:5000/tooshort",
            "mini-torrent://127.0.0.1:99999/" + "A" * 43,
            "mini-torrent://:5000/" + "A" * 43,
            "http://127.0.0.1:5000/" + "A" * 43,
            "nosuchfile.txt",
            "",
        ],
    )
    def test_a_link_that_is_none(self, quiet_swarm: Swarm, link: str) -> None:
        person = Person(quiet_swarm, "misled")
        person.refused("up", "--tracker", link, code=2)
        person.refused("status", code=3)

    def test_none_at_all(self, quiet_swarm: Swarm) -> None:
        person = Person(quiet_swarm, "lost")
        assert "tracker" in person.refused("up", code=2)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("127.0.0.1\n", "line 1"),
            ("127.0.0.1\nfive thousand\n", "line 2"),
            ("# ours\n\n127.0.0.1\n70000\n", "line 4"),
            ("300.1.1.1\n5000\n", "line 1"),
            ("127.0.0.1\n5000\n" + "!" * 43 + "\n", "line 3"),
            ("127.0.0.1\n5000\n" + "A" * 44 + "\n", "line 3"),
            ("127.0.0.1\n5000\n", "line 1"),
            ("\n# nothing\n", "names no tracker"),
        ],
    )
    def test_a_tracker_info_that_is_malformed(
        self, quiet_swarm: Swarm, text: str, line: str
    ) -> None:
        info = quiet_swarm.folder() / "tracker_info.txt"
        info.write_text(text)
        person = Person(quiet_swarm, "misinformed")
        said = person.refused("up", "--tracker", str(info), code=2)
        assert line in said
        assert "tracker_info.txt" in said

    def test_a_port_in_use(self, quiet_swarm: Swarm, dave: Person) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            person = Person(quiet_swarm, "crowded")
            link = quiet_swarm.tracker.link
            said = person.refused("up", "--listen", str(port), "--tracker", link)
            assert str(port) in said
            person.refused("status", code=3)
            home = quiet_swarm.root / "second"
            ran = run_program(
                [TRACKER, "run", "--home", str(home), "--bind", f"tcp://127.0.0.1:{port}"]
            )
            assert (ran.code, ran.out) == (1, ""), str(ran)
            assert f"127.0.0.1:{port}" in ran.err

    def test_a_home_that_others_can_read(self, quiet_swarm: Swarm) -> None:
        person = Person(quiet_swarm, "open")
        person.home.mkdir(mode=0o755)
        person.home.chmod(0o755)
        person.refused("up", "--tracker", quiet_swarm.tracker.link, code=2)

    def test_a_second_peer_of_the_same_home(self, quiet_swarm: Swarm, dave: Person) -> None:
        pid = dave.pid
        dave.ok("up")
        assert dave.pid == pid
        dave.refused("up", "--listen", "127.0.0.1:1")
        assert dave.pid == pid


class TestUsage:
    @pytest.mark.parametrize(
        "words",
        [
            ("nosuchcommand",),
            ("create-group",),
            ("create-group", "a", "b"),
            ("list-files", "--nosuch", "g"),
            ("--nosuch",),
        ],
    )
    def test_a_wrong_command_line(self, dave: Person, words: tuple[str, ...]) -> None:
        dave.refused(*words, code=2)

    def test_as_the_program_says_it(self, dave: Person) -> None:
        ran = dave.command("list-files", "nosuch")
        assert (ran.code, ran.out) == (1, "")
        first, *rest = ran.err.splitlines()
        assert first.startswith("error: ")
        assert all(line.startswith("hint: ") for line in rest)
        assert "Traceback" not in ran.err

    def test_no_traceback_when_interrupted(self, dave: Person, group: str) -> None:
        watching = dave.spawn("watch")
        wait_for(lambda: (toggle(dave, group), readable([watching.stdout], 0))[1])
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate()
        assert (watching.returncode, "share" in out) == (130, True)
        assert "Traceback" not in err


def toggle(person: Person, group: str) -> None:
    """An event of a group that can be repeated at will."""
    person.ok("upload-file", "/etc/hostname", group)
    person.ok("stop-share", group, "hostname")
