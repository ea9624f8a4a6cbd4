"""GET / : a page for people, which asks the API as any client does. Its files are in serving/page.

They are the only ones it needs. What a mail says is shown as text, and the policy that the browser
is given would stop it from loading, running or sending anything if it were not.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from serving.service import Service

FOLDER: Final = Path(__file__).parents[1] / "page"
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no innerHTML, by mistake either
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, but asked about each time: replicas of two versions may stand behind one address.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media: str
    tag: str


def _read() -> dict[str, _File]:
    """By path; all of them are small, and stay in memory."""
    found = {}
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in _TYPES:
            content = file.read_bytes()
            path = "/" if file.name == _INDEX else f"/page/{file.name}"
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path] = _File(content, _TYPES[file.suffix], tag)
    return found


def paths() -> frozenset[str]:
    """What a browser asks for to show the page, before it has a token."""
    return frozenset(_read())


def routes(service: Service) -> APIRouter:
    """The page; it needs nothing of the service itself."""
    router = APIRouter(include_in_schema=False)
    for path, file in _read().items():
        router.add_api_route(path, _answering(file), methods=["GET", "HEAD"])
    return router


def _answering(file: _File) -> Callable[[Request], Awaitable[Response]]:
    headers = {**HEADERS, "ETag": file.tag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media, headers=headers)

    return answer
