"""Link of an invitation: what people paste, and what it proves to whom."""

from __future__ import annotations

import shlex

import pytest

from common.errors import ConfigError
from common.ids import DeviceKey
from common.invitation import (
    SECRET_CHARACTERS,
    Invitation,
    id_of,
    key_of,
    new_secret,
    parse_invitation,
)
from common.link import Link, parse_link

HERE = Link(("tcp://192.0.2.7:5000",), DeviceKey(bytes(range(32))))
INVITATION = Invitation(HERE, bytes(range(18)))


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "'{}'",
        "mini-torrent join '{}'",
        "$ mini-torrent join '{}'\n",
        "  <{}>, ",
        "“{}”.",
    ],
)
def test_an_invitation_is_read_as_people_paste_it(form: str) -> None:
    assert parse_invitation(form.format(INVITATION.link)) == INVITATION


def test_an_invitation_at_an_ipc_tracker_is_read() -> None:
    one = Invitation(Link(("ipc:///run/a b/t.sock",), HERE.key), new_secret())
    assert parse_invitation(one.link) == one


def test_an_invitation_names_all_addresses_of_its_tracker() -> None:
    several = Link(("tcp://192.0.2.7:5000", "tcp://two.example:5000"), HERE.key)
    one = Invitation(several, new_secret())
    assert parse_invitation(one.link) == one
    assert one.link.startswith("mini-torrent://192.0.2.7:5000,two.example:5000/")


def test_a_shell_leaves_the_quoted_link_alone() -> None:
    assert shlex.split(f"join {shlex.quote(INVITATION.link)}", comments=True)[1] == INVITATION.link
    assert "'" in shlex.quote(INVITATION.link)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HERE.text, "not an invitation: the part from # on is missing"),
        (f"{HERE.text}#", "not an invitation: the part from # on is missing"),
        (INVITATION.link[:-1], f"{SECRET_CHARACTERS - 1} characters stand behind the #"),
        (INVITATION.link + "A", "something was added to it"),
        (INVITATION.link[:-1] + "é", "cannot stand behind the #"),
        ("mini-torrent://192.0.2.7:5000#AAAA", "the key is missing"),
        ("", "it is empty"),
    ],
)
def test_the_fault_of_a_link_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", "[(]")):
        parse_invitation(text)


def test_a_tracker_link_says_that_it_is_an_invitation() -> None:
    with pytest.raises(ConfigError, match="it is an invitation"):
        parse_link(INVITATION.link)


def test_h116_a_proof_for_one_tracker_opens_nothing_at_another_one() -> None:
    """A link with an exchanged key leads to a tracker that gets a proof for itself alone."""
    elsewhere = Invitation(Link(HERE.endpoints, DeviceKey(b"x" * 32)), INVITATION.secret)
    assert elsewhere.proof != INVITATION.proof
    assert key_of(elsewhere.proof) != key_of(INVITATION.proof)


def test_h116_the_kept_hash_proves_nothing() -> None:
    kept = key_of(INVITATION.proof)
    assert INVITATION.proof not in (kept, INVITATION.secret)
    assert key_of(kept) != kept
    assert id_of(kept).isalnum()
    assert INVITATION.secret.hex() not in repr(INVITATION)
