"""Plan of a follow: what it fetches, cancels and notes, from values alone."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.names import fold_name
from peer.follows.plan import (
    FETCHES_MAX,
    Cancel,
    Fetch,
    Fetched,
    Held,
    Hindrance,
    Listed,
    Mark,
    PlanInput,
    Settle,
    Settled,
    State,
    plan,
)

FOLDER = "/films"


def share(name: str = "a", version: int = 1, content: bytes = b"1") -> Listed:
    return Listed(name, version, content, 3)


def facts(*listed: Listed, **rest: Any) -> PlanInput:
    by_name = {fold_name(each.name): each for each in listed}
    known: dict[str, Any] = {"globs": (), "marks": {}, "downloads": (), "held": {}}
    return PlanInput(folder=FOLDER, listed=by_name, **{**known, **rest})


def fetched(of: Listed, path: str = "", *, own: bool = True, state: str = "D") -> Fetched:
    path = path or f"{FOLDER}/{of.name}"
    return Fetched(f"key of {path}", of.name, of.version, of.content, path, own, state)


def mark(of: Listed, how: Settled = Settled.PLACED) -> dict[str, Mark]:
    return {fold_name(of.name): Mark(of.version, of.content, how)}


def states(given: PlanInput) -> dict[str, State]:
    return {each.share.name: each.state for each in plan(given).standings}


def test_a_new_share_is_fetched_into_the_folder() -> None:
    made = plan(facts(share("b"), share("a", 1, b"2")))
    assert made.deeds == (
        Fetch(share("a", 1, b"2"), "/films/a"),
        Fetch(share("b"), "/films/b"),
    )


@pytest.mark.parametrize("how", Settled)
def test_a_settled_version_is_not_fetched_again_and_the_next_one_is(how: Settled) -> None:
    assert plan(facts(share(), marks=mark(share(), how))).deeds == ()
    newer = share("a", 2, b"2")
    assert plan(facts(newer, marks=mark(share(), how))).deeds == (Fetch(newer, "/films/a"),)


def test_a_running_download_is_left_alone() -> None:
    given = facts(share(), downloads=[fetched(share())])
    assert plan(given).deeds == ()
    assert states(given) == {"a": State.FETCHING}


@pytest.mark.parametrize(("letter", "state"), [("P", State.WAITING), ("F", State.FAILED)])
def test_a_paused_or_failed_download_is_not_begun_twice(letter: str, state: State) -> None:
    given = facts(share(), downloads=[fetched(share(), state=letter)])
    assert plan(given).deeds == ()
    assert states(given) == {"a": state}


def test_a_newer_version_cancels_the_older_download_first() -> None:
    old, new = share(), share("a", 2, b"2")
    made = plan(facts(new, downloads=[fetched(old)]))
    assert made.deeds == (Cancel("key of /films/a"),)
    assert plan(facts(new)).deeds == (Fetch(new, "/films/a"),)


def test_a_download_of_the_user_to_that_place_is_never_cancelled() -> None:
    given = facts(share("a", 2, b"2"), downloads=[fetched(share(), own=False)])
    assert plan(given).deeds == ()
    assert states(given) == {"a": State.QUEUED}


def test_a_complete_download_is_noted() -> None:
    given = facts(share(), downloads=[fetched(share(), state="C")])
    assert plan(given).deeds == (Settle(share(), Settled.PLACED),)


def test_a_share_of_this_device_from_elsewhere_is_held_there() -> None:
    held = {("a", b"1"): Held(1, b"1", "/data/a")}
    made = plan(facts(share(), held=held))
    assert made.deeds == (Settle(share(), Settled.ELSEWHERE),)
    assert made.standings[0].path == "/data/a"


def test_a_file_that_was_fetched_elsewhere_is_copied() -> None:
    held = {("a", b"1"): Held(1, b"1", "/other/a", fetched=True)}
    assert plan(facts(share(), held=held)).deeds == (Fetch(share(), "/films/a"),)


def test_one_content_is_fetched_once_at_a_time() -> None:
    twins = share("a"), share("b")
    assert plan(facts(*twins)).deeds == (Fetch(twins[0], "/films/a"),)
    given = facts(share(), busy={b"1": "/other/x"})
    assert plan(given).deeds == ()
    assert states(given) == {"a": State.QUEUED}


def test_a_withdrawn_share_ends_its_download_after_a_while_and_stays_if_complete() -> None:
    running = facts(downloads=[fetched(share())])
    assert plan(running).deeds == ()
    gone = facts(downloads=[fetched(share())], gone={"a"})
    assert plan(gone).deeds == (Cancel("key of /films/a"),)
    assert plan(facts(downloads=[fetched(share(), state="C")], gone={"a"})).deeds == ()


def test_a_download_that_matches_no_longer_is_cancelled() -> None:
    given = facts(share(), globs=("b*",), downloads=[fetched(share())])
    assert plan(given).deeds == (Cancel("key of /films/a"),)


def test_nothing_begins_while_the_folder_is_away() -> None:
    given = facts(share(), away="its disk may not be mounted")
    assert plan(given).deeds == ()
    assert plan(given).standings[0].reason == "its disk may not be mounted"


def test_a_hindered_version_waits_and_the_next_one_does_not() -> None:
    hindered = {"a": Hindrance(1, b"1", "a file is there")}
    assert plan(facts(share(), hindered=hindered)).deeds == ()
    newer = share("a", 2, b"2")
    assert plan(facts(newer, hindered=hindered)).deeds == (Fetch(newer, "/films/a"),)


def test_a_group_full_of_shares_is_fetched_a_few_at_a_time() -> None:
    many = [share(f"s{number:04}", 1, str(number).encode()) for number in range(500)]
    begun = plan(facts(*many)).deeds
    assert len(begun) == FETCHES_MAX
    running = [fetched(deed.share) for deed in begun if isinstance(deed, Fetch)]
    assert plan(facts(*many, downloads=running)).deeds == ()
    assert len(plan(facts(*many, downloads=running[1:])).deeds) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/passwd", "..", ".", "", "a/b", "x\0", "\x1b[2J", "x" * 300, "\udc80"),
        *("a.part", "A.PART", "~1.part", "a.part ", "film@2", "film@007", "x.replaced"),
    ],
)
def test_h110_a_hostile_name_leads_to_no_file(name: str) -> None:
    """Such a name is left out: it leaves the folder, or is that of a part or a kept version."""
    made = plan(facts(share(name)))
    assert made.deeds == ()
    assert [each.state for each in made.standings] in ([], [State.LEFT_OUT])


def test_h110_a_hidden_name_needs_a_pattern_of_its_own() -> None:
    """A member must not place a ``.bashrc`` in a home that follows the group."""
    hidden = share(".bashrc")
    for globs in ((), ("*",), ("?bashrc",), ("[.]bashrc",)):
        assert plan(facts(hidden, globs=globs)).standings == ()
    assert plan(facts(hidden, globs=(".bash*",))).deeds == (Fetch(hidden, "/films/.bashrc"),)


# -- by hypothesis --------------------------------------------------------------------------------

NAMES = ("a", "A.iso", "b.iso", "x.part", "b@2")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ("share", "withdraw", "finish", "fail", "cancel", "delete", "own", "away", "back")
        ),
        st.sampled_from(NAMES),
        st.integers(0, 3),
    ),
    max_size=40,
)


class World:
    """A group and a device: applies deeds as the manager does, and checks each one."""

    def __init__(self, globs: tuple[str, ...]) -> None:
        self.globs = globs
        self.listed: dict[str, Listed] = {}
        self.versions: dict[str, int] = {}
        self.marks: dict[str, Mark] = {}
        self.downloads: dict[str, Fetched] = {}
        self.held: dict[tuple[str, bytes], Held] = {}
        self.placed: dict[str, tuple[int, bytes]] = {}
        self.gone: set[str] = set()
        self.away: str | None = None
        self.keys = 0

    def facts(self) -> PlanInput:
        running = [each for each in self.downloads.values() if each.state == "D"]
        return PlanInput(
            folder=FOLDER,
            globs=self.globs,
            listed=self.listed,
            marks=self.marks,
            downloads=[*self.downloads.values()],
            held=self.held,
            busy={each.content: each.path for each in running},
            away=self.away,
            gone=self.gone,
        )

    def happens(self, what: str, name: str, number: int) -> None:
        key, path = fold_name(name), f"{FOLDER}/{name}"
        mine = [k for k, each in self.downloads.items() if each.path == path]
        match what:
            case "share":
                self.versions[key] = self.versions.get(key, 0) + 1
                self.listed[key] = Listed(name, self.versions[key], bytes([number]))
                self.gone.discard(key)
            case "withdraw":
                self.listed.pop(key, None)
                self.gone.add(key)
            case "finish" if mine:
                self.finish(mine[0])
            case "fail" if mine:
                self.change(mine[0], state="F")
            case "cancel" if mine:
                of = self.downloads.pop(mine[0])
                self.marks[key] = Mark(of.version, of.content, Settled.DISMISSED)
            case "delete":
                self.placed.pop(path, None)
            case "own" if key in self.listed:
                of = self.listed[key]
                self.held[key, of.content] = Held(of.version, of.content, f"/data/{name}")
            case "away":
                self.away = "away"
            case "back":
                self.away = None

    def change(self, key: str, **fields: Any) -> None:
        values = {name: getattr(self.downloads[key], name) for name in Fetched.__slots__}
        self.downloads[key] = Fetched(**{**values, **fields})

    def finish(self, key: str) -> None:
        of = self.downloads[key]
        self.change(key, state="C")
        self.placed[of.path] = (of.version, of.content)

    def step(self) -> bool:
        """Do what the plan says; return whether there was something to do."""
        deeds = plan(self.facts()).deeds
        for deed in deeds:
            match deed:
                case Cancel(key):
                    assert self.downloads[key].own
                    del self.downloads[key]
                case Settle(of, how):
                    self.marks[fold_name(of.name)] = Mark(of.version, of.content, how)
                case Fetch(of, path):
                    self.begin(of, path)
        return bool(deeds)

    def begin(self, of: Listed, path: str) -> None:
        assert os.path.dirname(path) == FOLDER
        assert os.path.basename(path) == of.name
        assert self.away is None
        settled = self.marks.get(fold_name(of.name))
        assert settled is None or (settled.version, settled.content) != (of.version, of.content)
        running = [each for each in self.downloads.values() if each.state != "C"]
        assert path not in {each.path for each in running}
        assert of.content not in {each.content for each in running if each.state == "D"}
        # A complete row to that place leaves the list, as in the list of downloads.
        self.downloads = {k: v for k, v in self.downloads.items() if v.path != path}
        self.keys += 1
        self.downloads[str(self.keys)] = Fetched(
            str(self.keys), of.name, of.version, of.content, path, True, "D"
        )


@given(EVENTS, st.sampled_from([(), ("*.iso",), ("a", "b*")]))
def test_every_plan_ends_with_each_wanted_version_in_place(
    happened: list[tuple[str, str, int]], globs: tuple[str, ...]
) -> None:
    """Whatever happens in between, each step is allowed, and in the end all is settled."""
    world = World(globs)
    for what, name, number in happened:
        world.happens(what, name, number)
        if number:
            world.step()
    world.away = None
    for _ in range(20):
        while world.step():
            pass
        running = [key for key, each in world.downloads.items() if each.state != "C"]
        if not running:
            break
        world.finish(running[0])
    last = plan(world.facts())
    assert last.deeds == ()
    allowed = {State.HELD, State.ELSEWHERE, State.DISMISSED, State.LEFT_OUT}
    assert {each.state for each in last.standings} <= allowed
    for standing in last.standings:
        if standing.state is State.HELD:
            mark = world.marks[fold_name(standing.share.name)]
            assert (mark.version, mark.content) == (standing.share.version, standing.share.content)
