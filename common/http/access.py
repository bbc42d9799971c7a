"""Rights of an HTTP request: Host, Origin, one-time secrets and session tokens.

Two kinds of listeners exist. A Unix socket lies in a home (0600 in 0700), so that the file system
admits its user alone. A page is served on a loopback port, which every program and every page in
the browser of this machine can reach: there each request needs a session token.

Invariant: the token travels in the ``Authorization`` header only. Why: a cookie is sent to all
ports of a host, and a query ends in histories and logs. Time is seconds of a monotonic clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from common import limits

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UNIX_HOSTS = frozenset({"localhost", "mini-torrent"})
TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Denied:
    """A refused request: the HTTP status and the reason."""

    status: int
    reason: str
    hint: str | None = None


class Sessions:
    """One-time secrets and the session tokens that they are exchanged for.

    Only hashes are kept, so that neither can be read from the memory of a crashed process.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._secrets: dict[bytes, float] = {}  # hash -> valid until
        self._tokens: dict[bytes, float] = {}  # hash -> last used at

    def new_secret(self) -> str:
        """A secret for one page, valid once and for `limits.PAGE_SECRET_S`."""
        self._expire()
        while len(self._secrets) >= limits.PAGE_SESSIONS_MAX:
            del self._secrets[next(iter(self._secrets))]
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        self._secrets[_hash(secret)] = self._clock() + limits.PAGE_SECRET_S
        return secret

    def redeem(self, secret: str) -> str | None:
        """Exchange a secret for a token; None if it is unknown, used or expired."""
        self._expire()
        if self._secrets.pop(_hash(secret), None) is None:
            return None
        while len(self._tokens) >= limits.PAGE_SESSIONS_MAX:
            del self._tokens[min(self._tokens, key=self._tokens.__getitem__)]
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens[_hash(token)] = self._clock()
        return token

    def is_valid(self, token: str) -> bool:
        """Whether ``token`` belongs to a session. A use keeps the session alive."""
        self._expire()
        hashed = _hash(token)
        if hashed not in self._tokens:
            return False
        self._tokens[hashed] = self._clock()
        return True

    def end(self, token: str) -> None:
        """End the session of ``token``, if there is one."""
        self._tokens.pop(_hash(token), None)

    def _expire(self) -> None:
        now = self._clock()
        self._secrets = {one: until for one, until in self._secrets.items() if until > now}
        self._tokens = {
            one: used for one, used in self._tokens.items() if used + limits.PAGE_IDLE_S > now
        }


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class Access:
    """Decides whether a request may go on.

    ``hosts``: None admits all, for a port without secrets. ``sessions``: None on a port or Unix
    socket that needs none. ``open_again``: the hint for a page whose session ended.
    ``origin``: that of the page behind a proxy, which reaches the Unix socket and decides on its
    users by itself.
    """

    def __init__(
        self,
        hosts: frozenset[str] | None,
        sessions: Sessions | None,
        open_again: str | None = None,
        origin: str | None = None,
    ) -> None:
        self.open_again = open_again
        self._origin = origin
        self._proxied = None if origin is None else origin.partition("://")[2]
        self._hosts = hosts
        self._sessions = sessions

    def check_host(self, headers: Mapping[str, str]) -> Denied | None:
        """Refuse a request for another host, before anything else is read of it.

        Why: a page of a stranger reaches this port by a name of its own that it points here.
        """
        if self._hosts is None or self._proxied == headers.get("host", ""):
            return None
        if headers.get("host", "") not in self._hosts:
            return Denied(421, "this is not the host that the request names")
        return None

    def check_site(
        self, method: str, headers: Mapping[str, str], *, public: bool = False
    ) -> Denied | None:
        """Refuse requests that a page of another origin makes a browser send.

        A user may come to a ``public`` path from anywhere. Why: a browser opens the page by a file
        of this machine, which counts as another site. The page cannot be framed.
        """
        if method in WRITES and not _is_json(headers.get("content-type", "")):
            return Denied(415, "a request that changes something has the type application/json")
        own = f"http://{headers.get('host', '')}"
        if self._sessions is None:
            if self._origin is None or headers.get("host") != self._proxied:
                return Denied(403, "a browser has no access here") if "origin" in headers else None
            own = self._origin
        if public and method == "GET" and _is_navigation(headers):
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin != own:
            return Denied(403, "a page of another origin has no access")
        if site not in (None, "same-origin", "none"):
            return Denied(403, "a page of another site has no access")
        if method in WRITES and (origin is None or site != "same-origin"):
            return Denied(403, "a request that changes something comes from the page itself")
        return None

    def check_token(self, headers: Mapping[str, str]) -> Denied | None:
        """Refuse a request without the token of a session."""
        if self._sessions is None:
            return None
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self._sessions.is_valid(token.strip()):
            return Denied(401, "the session has ended", self.open_again)
        return None


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Whether a browser loads a page of its own for it, and no frame or part of another one."""
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "navigate",
        "document",
    )


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
