"""JSON documents of what the operator changed, as ``--json`` prints them and the HTTP API returns.

The table of keys is in docs/json.md.
"""

from __future__ import annotations

from typing import Any

from common.messages import operator as messages


def document_of(command: messages.Command, changed: messages.Changed) -> dict[str, Any]:
    """Return the document of a change. ``command``: the command that made it."""
    match command:
        case messages.SetDisabled():
            return {"user": changed.name, "disabled": command.disabled, "devices": changed.devices}
        case messages.DeleteUser():
            counts = {"devices": changed.devices, "groups": changed.groups}
            return {"user": changed.name, "deleted": True, **counts}
        case messages.ResetPassword():
            return {"user": changed.name, "devices": changed.devices}
        case messages.DeleteGroup():
            return {"group": changed.name, "deleted": True}
        case _:
            return {"stopped": True}
