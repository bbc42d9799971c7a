"""Clean-up of pasted links: blanks, quotes or line breaks around and within, or cut short.

Owns: the removal of such additions, and the error texts for the rest. Not here: the parts of a link
(see ``common.link``).
"""

from __future__ import annotations

import re

from common import limits
from common.errors import ConfigError
from common.hints import tracker_hint
from common.names import quoted

SCHEME, IPC_SCHEME = "mini-torrent://", "mini-torrent+ipc://"
KEY_CHARACTERS = 43  # of 32 bytes in base64url
_HINT = tracker_hint(f"a link looks like {SCHEME}HOST:PORT/KEY; see it on its machine", "link")
_AROUND = "\"'`<>()[]{}“”„‘’‚«»‹›"
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_BARE = re.compile(rf"[^/\s]+:[0-9]{{1,5}}/[A-Za-z0-9_-]{{{KEY_CHARACTERS}}}\Z")


def cleaned(text: str) -> str:
    """Return ``text`` without the additions of mail programs, shells and people to a link.

    A path of a socket keeps its blanks; ``HOST:PORT/KEY`` gets the scheme that it lacks.
    """
    text = _INVISIBLE.sub("", text).strip()
    while text and (text[0] in _AROUND or text[-1] in _AROUND + ".,;"):
        if text[0] == "[" and not text.endswith("]"):
            break  # an IPv6 address, without the scheme
        inner = text.lstrip(_AROUND).rstrip(_AROUND + ".,;").strip()
        if inner == text:
            break
        text = inner
    head, slashes, rest = text.partition("://")
    if slashes and head.lower() in ("mini-torrent", "mini-torrent+ipc"):
        text = f"{head.lower()}://{rest}"
    if not text.startswith(IPC_SCHEME) and looks_like_link(text):
        text = re.sub(r"\s*[\r\n]\s*", "", text)  # a mail program's line break
    return SCHEME + text if _BARE.match(text) else text


def looks_like_link(text: str) -> bool:
    """Whether ``text`` was meant as a link, whole or not, and not as the path of a file."""
    return "://" in text or bool(_BARE.match(text)) or text.lower().startswith("mini-torrent")


def refusal(text: str) -> ConfigError:
    """Return the error that names the exact fault of ``text``, which is no link."""
    return ConfigError(f"not a tracker's link: {_fault(text)}", _HINT)


def _fault(text: str) -> str:
    if not text:
        return "it is empty"
    scheme, slashes, rest = text.partition("://")
    if scheme != "mini-torrent+ipc" and re.search(r"\s", text):
        return f"there is a blank in it, after {quoted(text.split()[0])}"
    if not slashes or scheme not in ("mini-torrent", "mini-torrent+ipc"):
        if re.fullmatch(rf"[A-Za-z0-9_-]{{{KEY_CHARACTERS}}}", text):
            return "it is the key alone, without host and port"
        begins = quoted(f"{scheme}://" if slashes else text)
        return f"it begins with {begins} and not with {SCHEME}"
    address, slash, key = rest.rpartition("/")
    if not slash or (scheme == "mini-torrent+ipc" and not address):
        if re.fullmatch(r".*:[0-9]*", rest):
            return "the key is missing: it ends after the port"
        return "the key is missing, or the / before it"
    if scheme == "mini-torrent":
        if not address:
            return "host and port are missing"
        if fault := _fault_of_addresses(address.split(",")):
            return fault
    return _fault_of_key(key) or f"{quoted(address)} is no host with a port"


def _fault_of_addresses(addresses: list[str]) -> str | None:
    if "" in addresses:
        return "an address is missing beside a comma"
    for address in addresses:
        if not re.search(r":[0-9]+\Z", address):
            return f"the port is missing after the host {quoted(address.rstrip(':'))}"
        if address.startswith(":"):
            return "the host is missing before the port"
    if len(set(addresses)) > limits.TRACKER_ADDRESSES_MAX:
        return f"it has more than {limits.TRACKER_ADDRESSES_MAX} addresses"
    return None


def _fault_of_key(key: str) -> str | None:
    if not key:
        return "the key is missing: it ends after the last /"
    if "#" in key:
        return "it is an invitation: what stands from # on belongs to the command `join`"
    if wrong := re.search(r"[^A-Za-z0-9_-]", key):
        return f"the key has a character that no key has: {quoted(wrong[0])}"
    if len(key) != KEY_CHARACTERS:
        what = "it was cut" if len(key) < KEY_CHARACTERS else "something was added to it"
        return f"the key has {len(key)} characters and not {KEY_CHARACTERS}: {what}"
    if key[-1] not in "AEIMQUYcgkosw048":  # the last one stands for four bits
        return f"the key is damaged: none ends with {quoted(key[-1])}"
    return None
