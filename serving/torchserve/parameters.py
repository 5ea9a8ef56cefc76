"""What TorchServe's worker received for each request of a batch, with names that repeat, in order.

TorchServe hands a handler a dictionary of fields, in which the last of several parts with one name is the only one.
`keep_all` makes its worker hand over the list from which it builds that dictionary.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from serving.protocol.media_types import JSON
from serving.protocol.messages import RequestError
from serving.protocol.parts import BODY, Part, check_count

Parameters = Sequence[Mapping[str, Any]]  # TorchServe's own: each has a name, a value and a contentType
Batch = tuple[list[Any], list[Any], dict[int, str]]  # headers, what the handler gets, request ids

_OVERHEAD = 1024  # bytes that a part's boundary and headers may take, and as many that are no part's
_PATH_HEADER = "url_path"
_LOG = logging.getLogger(__name__)


def keep_all() -> None:
    """From now on this worker's handler gets `Parameters` for each request, with the bytes that were sent.

    In a TorchServe that has no such place, it goes on to get dictionaries.
    """
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"  # JSON and text arrive as bytes
    try:
        from ts.service import Service

        collapsed = Service.retrieve_data_for_inference
    except (ImportError, AttributeError):
        _LOG.warning("this TorchServe reads requests in its own way: of parts with one name only the last counts")
        return
    Service.retrieve_data_for_inference = staticmethod(_all_of(collapsed))


def _all_of(collapsed: Callable[[Any], Batch]) -> Callable[[Any], Batch]:
    def retrieve(batch: Any) -> Batch:
        headers, fields, ids = collapsed(batch)
        return headers, [one.get("parameters", by_name) for one, by_name in zip(batch, fields, strict=True)], ids

    return retrieve


def plain_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers by their names in lower case, without those of its parts, which are dictionaries."""
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def parts_of(data: Parameters | Mapping[str, Any], headers: Mapping[str, Any]) -> list[Part]:
    """The query's texts and the body's parts of one request, from whichever form the handler got.

    Raises `RequestError`: 413 for too many, 400 where parts of a multipart body are missing or a path is behind the
    model's, which TorchServe hands over as a header that anyone can send.
    """
    if path := plain_headers(headers).get(_PATH_HEADER):
        raise RequestError(
            f"the path {path!r:.80} behind the model's names nothing; which operation, say by the field op"
        )
    parameters = _from_fields(data, headers) if isinstance(data, Mapping) else data
    check_count(len(parameters))
    parts = [_part(one["name"], one["value"], one["contentType"] or None) for one in parameters]
    _check_whole(parts, plain_headers(headers))
    return parts


def has_body(parts: Sequence[Part], headers: Mapping[str, str]) -> bool:
    """Whether the request had a body: TorchServe tells no method, and the browser's GET of a link has none."""
    length = headers.get("content-length", "")
    if length.isdecimal():
        return int(length) > 0
    return "transfer-encoding" in headers or any(part.media_type is not None for part in parts)


def _from_fields(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> Parameters:
    whole = plain_headers(headers).get("content-type")
    kinds = {name: of.get("content-type") for name, of in headers.items() if isinstance(of, dict)}
    return [
        {"name": name, "value": value, "contentType": kinds.get(name) or (whole if name == BODY else None)}
        for name, value in fields.items()
    ]


def _part(name: str, value: Any, media_type: str | None) -> Part:
    if isinstance(value, bytes | bytearray):
        return Part(name, bytes(value), media_type)
    if isinstance(value, str):  # TorchServe decodes text, where nothing keeps it from that
        return Part(name, value.encode(), media_type if name == BODY else None)
    return Part(name, msgspec.json.encode(value), JSON)


def _check_whole(parts: Sequence[Part], headers: Mapping[str, str]) -> None:
    """TorchServe leaves out the part within which a multipart body ends, and all that should have come after it."""
    sent = headers.get("content-length", "")
    if not headers.get("content-type", "").lower().startswith("multipart/") or not sent.isdecimal():
        return
    arrived = sum(len(part.content) for part in parts)
    if int(sent) > arrived + _OVERHEAD * (len(parts) + 1):
        raise RequestError(
            f"the multipart body was cut off: of its {sent} bytes, the parts that are whole have {arrived}"
        )
