"""Refusals that a peer and the tracker share have the same words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import Refused
from common.ids import DeviceKey
from common.shared_refusals import no_group, not_logged_in
from tracker.core import context
from tracker.core.state import State


def raised(refuse: Callable[[], object]) -> tuple[str, str, str | None]:
    with pytest.raises(Refused) as caught:
        refuse()
    return caught.value.code, caught.value.message, caught.value.hint


def test_no_group() -> None:
    ours = no_group("lab")
    assert (ours.code, ours.message, ours.hint) == raised(lambda: context.refuse_group("lab"))


def test_not_logged_in() -> None:
    ours = not_logged_in()
    caller = context.Caller(DeviceKey(bytes(32)))
    assert (ours.code, ours.message, ours.hint) == raised(lambda: context.user_of(State(), caller))
