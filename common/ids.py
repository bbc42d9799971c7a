"""The identifiers that travel, as distinct types, so that they cannot be mixed up.

Owns the types only. Whether a text typed by a person is a valid user or group id is decided in
``common.names``.
"""

from __future__ import annotations

from typing import NewType

DeviceKey = NewType("DeviceKey", bytes)
"""The 32 bytes of a device's CURVE public key: who is at the other end of a connection."""

ContentId = NewType("ContentId", bytes)
"""32 bytes: the BLAKE3 of the encoded manifest. It names a content wherever it is shared."""

TrackerId = NewType("TrackerId", bytes)
"""16 bytes: which installation of a tracker issued a ticket."""

UserId = NewType("UserId", str)
"""A person's account, folded to lower case for comparing."""

GroupId = NewType("GroupId", str)
"""A group's name, folded to lower case for comparing."""

KEY_BYTES = 32
