"""What browsers need to be told so that the pages of allowed origins may read our replies (CORS)."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ASKED_WITH = ("authorization", "x-api-key", "x-request-id", "traceparent")
_SHOWN = ("x-release", "x-shape", "x-dtype", "x-request-id", "retry-after")
_REMEMBERED_SECONDS = 600


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, as pages of these origins may use it; itself where there are none.

    Never with credentials: no cookie means anything here, and a page has to know its key.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_ASKED_WITH,
        expose_headers=_SHOWN,
        max_age=_REMEMBERED_SECONDS,
    )
