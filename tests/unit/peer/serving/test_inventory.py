"""Inventory of served contents, and its reports to the piece server."""

from __future__ import annotations

from typing import Any

import pytest

from common.ids import ContentId, GroupId
from common.messages.base import Refusal
from common.messages.refusals import Code
from peer.serving.inventory import NOT_OFFERED, Inventory
from peer.swarm.pieces import Bitfield

FILMS, MUSIC = GroupId("films"), GroupId("music")
ONE, TWO = ContentId(b"1" * 32), ContentId(b"2" * 32)


class Listener:
    """A listener that records its callbacks."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args[:2]))

    def take(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def inventory(listener: Listener) -> Inventory:
    made = Inventory()
    made.attach(listener)
    return made


def put(inventory: Inventory, group: GroupId, have: Bitfield | None, reader: Any = None) -> None:
    inventory.put(group, ONE, None, b"", reader, have)  # type: ignore[arg-type]


def test_a_content_is_found_in_the_groups_in_which_it_is_offered(
    inventory: Inventory, listener: Listener
) -> None:
    put(inventory, FILMS, None)
    put(inventory, MUSIC, None)
    assert [what[0] for what in listener.take()] == ["content_added"]
    assert inventory.find(FILMS, ONE) is inventory.find(MUSIC, ONE) is inventory.get(ONE)
    assert inventory.find(FILMS, TWO) is None
    inventory.withdraw(FILMS, ONE)
    assert listener.take() == [("group_removed", ONE, FILMS)]
    assert inventory.find(FILMS, ONE) is None
    assert inventory.find(MUSIC, ONE) is not None
    inventory.withdraw(FILMS, ONE)
    inventory.withdraw(MUSIC, ONE)
    assert listener.take() == [("content_removed", ONE, NOT_OFFERED)]
    assert len(inventory) == 0


def test_a_part_grows_shrinks_and_becomes_whole(inventory: Inventory, listener: Listener) -> None:
    have = Bitfield(4, [0])
    put(inventory, FILMS, have, "part")
    inventory.held_more(ONE, (1, 2), "part")  # type: ignore[arg-type]
    inventory.held_less(ONE, (2,), "part")  # type: ignore[arg-type]
    inventory.held_more(ONE, (3,), "another part")  # type: ignore[arg-type]
    assert list(have.missing()) == [2, 3]
    listener.take()
    put(inventory, FILMS, None, "whole")
    served = inventory.get(ONE)
    assert served is not None
    assert (served.reader, served.have) == ("whole", None)
    assert listener.take() == [("held_more", ONE, (2, 3)), ("announce", ONE, (2, 3))]
    inventory.withdraw_part(ONE, "part")  # type: ignore[arg-type]
    inventory.held_less(ONE, (1,), "part")  # type: ignore[arg-type]
    assert inventory.find(FILMS, ONE) is served
    assert listener.take() == []


def test_a_part_does_not_replace_the_whole(inventory: Inventory) -> None:
    put(inventory, FILMS, None, "whole")
    put(inventory, MUSIC, Bitfield(4, []), "part")
    served = inventory.find(MUSIC, ONE)
    assert served is not None
    assert (served.reader, served.have) == ("whole", None)


def test_changed_files_are_reported_with_a_reason(inventory: Inventory, listener: Listener) -> None:
    seen: list[ContentId] = []
    inventory.on_changed = seen.append
    put(inventory, FILMS, None)
    listener.take()
    inventory.changed(ONE)
    ((what, content, refusal),) = listener.take()
    assert (what, content) == ("content_removed", ONE)
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.CHANGED
    assert (seen, inventory.get(ONE)) == ([ONE], None)


def test_damage_is_reported_to_the_download(inventory: Inventory) -> None:
    damaged: list[tuple[int, ...]] = []
    inventory.put(FILMS, ONE, None, b"", None, Bitfield(4, []), on_damaged=damaged.append)  # type: ignore[arg-type]
    inventory.damaged(ONE, (2,))
    inventory.damaged(TWO, (3,))
    assert damaged == [(2,)]


def test_an_inventory_can_be_cleared(inventory: Inventory, listener: Listener) -> None:
    put(inventory, FILMS, None)
    inventory.clear()
    assert len(inventory) == 0
    assert listener.take()[-1][0] == "content_removed"


def test_suspended_pieces_stay_held(inventory: Inventory, listener: Listener) -> None:
    have = Bitfield(4, [0, 1])
    put(inventory, FILMS, have, "part")
    listener.take()
    inventory.suspend(ONE, (1,))
    inventory.resume(ONE, (1,))
    assert listener.take() == [
        ("held_less", ONE, (1,)),
        ("held_more", ONE, (1,)),
        ("announce", ONE, (1,)),
    ]
    assert list(have.missing()) == [2, 3]
