"""Versions of names that were withdrawn from a group, and may be served no longer."""

from __future__ import annotations

from common import names
from common.errors import Refused
from common.messages import events
from common.messages.refusals import Code


def is_withdrawn(event: events.Withdrawn, name: str, version: int) -> bool:
    """Whether ``event`` ends a version of ``name``."""
    if names.fold_name(event.name) != names.fold_name(name):
        return False
    return version == event.version or (event.earlier and version < event.version)


def withdrawn_by(event: events.Withdrawn) -> Refused:
    """Return the reason for the end of a share or a download."""
    what = "it" if event.earlier else f"version {event.version}"
    return Refused(Code.WITHDRAWN, f"{names.printable(event.user)} withdrew {what} from the group")
