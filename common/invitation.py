"""Invitation to a group: its link, its secret, and the hash that a tracker keeps of it.

Owns: the form ``LINK#SECRET``, where LINK is that of the tracker, and the two hashes between a
secret and a tracker. Not here: who may make or redeem one (see ``tracker.core.invitations``).

A device makes the secret and sends the tracker only `key_of` its proof. The device that redeems the
invitation sends the proof. It is bound to the key of one tracker, and opens nothing at another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass, field

from common import link_text
from common.errors import ConfigError
from common.hints import hint
from common.ids import DeviceKey
from common.link import Link, parse_link

SECRET_BYTES = 18  # 144 bits cannot be guessed, so a fast hash protects them; 24 characters
SECRET_CHARACTERS = 24
HASH_BYTES = 32
ID_CHARACTERS = 8
_ASK = "ask for a new invitation, and paste its line as it is, with the quotes"
_PASTED = re.compile(r"mini-torrent(?:\+ipc)?://.*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation at one tracker, or at those with one key. ``secret`` is `SECRET_BYTES` long."""

    tracker: Link
    secret: bytes = field(repr=False)

    @property
    def link(self) -> str:
        return f"{self.tracker.text}#{base64.urlsafe_b64encode(self.secret).decode()}"

    @property
    def proof(self) -> bytes:
        """The proof that redeems this invitation at its tracker, and at no other one."""
        return proof_of(self.secret, self.tracker.key)


def new_secret() -> bytes:
    """Return a fresh secret."""
    return os.urandom(SECRET_BYTES)


def proof_of(secret: bytes, tracker: DeviceKey) -> bytes:
    """Return the proof of ``secret`` for the tracker with that key."""
    return hashlib.blake2b(
        secret, key=tracker, digest_size=HASH_BYTES, person=b"mt invitation"
    ).digest()


def key_of(proof: bytes) -> bytes:
    """Return the hash of a proof, under which a tracker keeps the invitation."""
    return hashlib.blake2b(proof, digest_size=HASH_BYTES, person=b"mt invite key").digest()


def id_of(key: bytes) -> str:
    """Return the short id of an invitation for people; it tells nothing of the secret."""
    return base64.b32encode(key).decode().lower()[:ID_CHARACTERS]


def parse_invitation(text: str) -> Invitation:
    """Return the invitation of a pasted link. Raises `ConfigError` that names the fault."""
    # The whole line may have been pasted, with the program's name before the link.
    pasted = _PASTED.search(text)
    cleaned = link_text.cleaned(pasted[0] if pasted else text)
    address, mark, secret = cleaned.partition("#")
    where = parse_link(address)
    if not mark or not secret:
        raise ConfigError(
            "this is the link of a tracker and not an invitation: the part from # on is missing",
            f"{_ASK}; without one: {hint('', 'up', where.text).removeprefix(': ')}",
        )
    if wrong := re.search(r"[^A-Za-z0-9_-]", secret):
        raise ConfigError(f"not an invitation: {wrong[0]!r} cannot stand behind the #", _ASK)
    if len(secret) != SECRET_CHARACTERS:
        what = "it was cut" if len(secret) < SECRET_CHARACTERS else "something was added to it"
        raise ConfigError(
            f"not an invitation: {len(secret)} characters stand behind the # and not"
            f" {SECRET_CHARACTERS}: {what}",
            _ASK,
        )
    try:
        return Invitation(where, base64.urlsafe_b64decode(secret))
    except binascii.Error:
        raise ConfigError("not an invitation: the part behind the # is damaged", _ASK) from None
