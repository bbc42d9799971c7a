"""create_user, login, logout: by real processes, over tcp and ipc."""

from __future__ import annotations

from people import Person, Swarm


def test_a_taken_name_is_refused(alice: Person, bob: Person) -> None:
    assert "alice" in bob.refused("create-user", "Alice", "some password")
