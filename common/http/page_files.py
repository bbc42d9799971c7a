"""Files of a page, read once from their packages; a page loads nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ASSETS = "/assets/"
INDEX = "index.html"
SHARED = "common.http"
_FOLDER = "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def contents(package: str) -> dict[str, tuple[bytes, str]]:
    """Return the files of the page of ``package``, and those of all pages, by name.

    Each has its media type. Files of the package's own precede those of all pages.
    """
    found = {}
    for folder in (SHARED, package):
        for file in files(folder).joinpath(_FOLDER).iterdir():
            ending = "." + file.name.rpartition(".")[2]
            if ending in _TYPES:
                found[file.name] = (file.read_bytes(), _TYPES[ending])
    return found


def is_page_path(path: str) -> bool:
    """Whether a path is one of the page's own files, which are the same for every user."""
    return path == "/" or path.startswith(ASSETS)


def page_routes(package: str) -> list[Route]:
    """The routes of the files of the page of ``package``."""

    async def asset(request: Request) -> Response:
        found = contents(package).get(request.path_params.get("name", INDEX))
        if found is None:
            return Response("there is no such file", 404)
        body, media_type = found
        return Response(body, media_type=media_type)

    return [Route("/", asset), Route(f"{ASSETS}{{name}}", asset)]
