"""What a client asks for, as values: a call is one HTTP request, and steps are calls that follow from each other.

An operation (`serving.client.operations`) is written once, as a generator of calls. `Client` and `AsyncClient` carry
the calls out, each in its own way, and give the replies back to it.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx

Result = TypeVar("Result")
Repeat = Literal["read", "write", "never"]

COLLECTION = "/v1/collections/{collection}"  # where the calls of a collection go
_JSON = "application/json"


@dataclass(frozen=True)
class Call:
    """One HTTP request; `{collection}` in its path stands for the client's collection.

    `repeat` says what sending it a second time does: nothing at all ("read"), nothing more than the first time did
    ("write"), or something else ("never"). It is sent `after` so many seconds.
    """

    method: str
    path: str
    repeat: Repeat = "read"
    params: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0


Steps = Generator[Call, httpx.Response, Result]
Page = Callable[[str | None], Call]  # the call for the page at a cursor


def json_reply(call: Call) -> Steps[dict[str, Any]]:
    """The step of one call, whose reply is JSON."""
    found: dict[str, Any] = (yield call).json()
    return found


def said(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def json_body(options: Mapping[str, Any]) -> dict[str, Any]:
    """A body of JSON, as `httpx` takes it; an option that is bytes is JSON already.

    Raises `ValueError` for numbers that are not finite.
    """
    return {"content": _encoded(options), "headers": {"content-type": _JSON}}


def form_body(files: Sequence[tuple[str, bytes]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A body of image files, under names that may repeat, and of JSON; of JSON alone where there are no files."""
    if not files:
        return json_body(options)
    parts: list[tuple[str, tuple[str, bytes, str]]] = [
        (name, (name, content, "application/octet-stream")) for name, content in files
    ]
    if options:
        parts.append(("options", ("options", _encoded(options), _JSON)))
    return {"files": parts}


def segment(name: str) -> str:
    """A name as one segment of a path; dots too, of which some would be taken for the folder above."""
    return quote(name, safe="").replace(".", "%2E")


def _encoded(options: Mapping[str, Any]) -> bytes:
    ready = {name: value for name, value in options.items() if isinstance(value, bytes)}
    others = {name: value for name, value in options.items() if name not in ready}
    pairs = [json.dumps(others, allow_nan=False)[1:-1].encode()]
    pairs += [b'"%s": %s' % (name.encode(), value) for name, value in ready.items()]
    return b"{%s}" % b", ".join(filter(None, pairs))
