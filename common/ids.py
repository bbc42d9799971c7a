"""Identifiers in messages, as distinct types, so that they cannot be mixed up.

Owns: the types. Not here: validation of typed ids (see ``common.names``).
"""

from __future__ import annotations

from typing import NewType

DeviceKey = NewType("DeviceKey", bytes)
"""The 32 bytes of a device's CURVE public key. It identifies the other end of a connection."""

ContentId = NewType("ContentId", bytes)
"""32 bytes: the BLAKE3 of the encoded manifest. It names a content wherever it is shared."""

TrackerId = NewType("TrackerId", bytes)
"""16 bytes: the installation of a tracker that issued a ticket."""

UserId = NewType("UserId", str)
"""A person's account, folded to lower case for comparing."""

GroupId = NewType("GroupId", str)
"""A group's name, folded to lower case for comparing."""

KEY_BYTES = 32
