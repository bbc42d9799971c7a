"""Problem details (RFC 9457): errors of the HTTP API, with the codes of all conversations."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeAlias

from starlette.responses import JSONResponse

from common.errors import MiniTorrentError
from common.messages import control, operator
from common.messages.refusals import Code

NEEDS_CONSENT = "needs-consent"
_STATUS = {
    Code.USAGE: HTTPStatus.BAD_REQUEST,
    Code.MALFORMED: HTTPStatus.BAD_REQUEST,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNREACHABLE: HTTPStatus.BAD_GATEWAY,
    Code.STORAGE: HTTPStatus.INSUFFICIENT_STORAGE,
    Code.NOT_LOGGED_IN: HTTPStatus.UNAUTHORIZED,
    Code.WRONG_CREDENTIALS: HTTPStatus.FORBIDDEN,
    Code.NOT_OWNER: HTTPStatus.FORBIDDEN,
    Code.SLOW_DOWN: HTTPStatus.TOO_MANY_REQUESTS,
    Code.LIMIT: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNKNOWN_GROUP: HTTPStatus.NOT_FOUND,
    Code.UNKNOWN_SHARE: HTTPStatus.NOT_FOUND,
    Code.UNKNOWN_USER: HTTPStatus.NOT_FOUND,
    Code.UNKNOWN_DEVICE: HTTPStatus.NOT_FOUND,
    Code.UNKNOWN_REQUEST: HTTPStatus.NOT_FOUND,
    Code.TIMED_OUT: HTTPStatus.GATEWAY_TIMEOUT,
}


def status_of(code: str) -> int:
    """Return the HTTP status for a reason code; 409 for those without one of their own."""
    try:
        return _STATUS.get(Code(code), HTTPStatus.CONFLICT)
    except ValueError:
        return HTTPStatus.CONFLICT


def details(code: str, message: str, hint: str | None = None, status: int = 0) -> dict[str, Any]:
    """Return the document of a problem. ``code``: the reason, as in ``--json``."""
    status = status or status_of(code)
    found = {"title": HTTPStatus(status).phrase, "status": status, "detail": message, "code": code}
    return {**found, "hint": hint} if hint else found


Failure: TypeAlias = control.Failed | control.NeedsConsent | operator.Failed


def details_of(answer: Failure) -> dict[str, Any]:
    """Return the document of a refused command, or of one that needs consent first."""
    if isinstance(answer, control.NeedsConsent):
        hint = 'send it again with "yes": true'
        return details(NEEDS_CONSENT, answer.question, hint, HTTPStatus.CONFLICT)
    return details(answer.code, answer.message, answer.hint)


def of_error(error: MiniTorrentError) -> dict[str, Any]:
    """Return the document of an error."""
    return details(error.code, error.message, error.hint)


def problem(code: str, message: str, status: int = 0) -> JSONResponse:
    """Return the response for an error that has no hint."""
    return response(details(code, message, status=status))


def response(found: dict[str, Any]) -> JSONResponse:
    """Return the response that carries a problem."""
    return JSONResponse(found, found["status"], media_type="application/problem+json")
