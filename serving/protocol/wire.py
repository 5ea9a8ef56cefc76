"""Requests and replies as HTTP carries them: JSON, multipart, raw image bytes; JSON, npy, raw numbers and pictures.

`parse` takes the query, the parts of the body and the headers of one request; `encode` gives back status, content
type, headers and bytes. Nothing is ever unpickled.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import orjson

from core.images.decode import ImageError
from serving.protocol.asking import operation_asked, request_of
from serving.protocol.body import Body
from serving.protocol.encodings import Encoded, pack
from serving.protocol.media_types import JSON, NPY, PICTURE, RAW, MediaType, best_of
from serving.protocol.messages import Answer, Failure, Picture, RequestError
from serving.protocol.operations import GetRequest, Operation, Request
from serving.protocol.parts import Part, body_from

WORKER_HEADER = "x-worker"  # the process that answered
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


@dataclass(frozen=True)
class Reply:
    """One HTTP reply."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Call:
    """One HTTP call: its request where that can be read, the media type of its reply, and its answer once found."""

    request: Request | None = None
    media_type: MediaType = JSON
    answer: Answer | RequestError | None = None
    origins: Sequence[str] = ()  # what logs call its requests, where that is known

    @property
    def requests(self) -> Sequence[Request]:
        """Every request that it brings."""
        return [self.request] if self.request is not None else []

    def take(self, answers: Sequence[Answer | RequestError]) -> None:
        """Take the answers to its requests."""
        if answers:
            (self.answer,) = answers


def parse(
    query: Sequence[tuple[str, str]],
    parts: Sequence[Part],
    *,
    headers: Mapping[str, str],
    path: str = "",
    posted: bool = True,
) -> tuple[Request, MediaType]:
    """Read one request, and in which media type its reply is to come.

    `headers` have names in lower case. The operation is the query's or form's `op`, else the JSON's, else `path`,
    else embed. `posted` says whether the method allows a change. Raises `RequestError`, for what would change anything
    without being posted with 405.
    """
    accept = headers.get("accept", "")
    body = body_from(query, parts, accept=accept)
    operation = operation_asked(body, path)
    if operation.changes and not posted:
        raise RequestError(f"{operation.name} changes something, so it must be sent by POST, with a body", 405)
    return request_for(body, operation, accept)


def request_for(body: Body, operation: Operation, accept: str = "") -> tuple[Request, MediaType]:
    """The request of this operation, and in which media type its reply is to come. Raises `RequestError`."""
    media_type = best_of(operation.replies, accept)
    if media_type is None:
        offers = " or ".join(operation.replies)
        raise RequestError(f"Accept is {accept!r}; the reply to {operation.name} comes as {offers}", 406)
    request = request_of(body, operation)
    return (_with_picture(request) if media_type == PICTURE else request), media_type


def encode(answer: Answer | Failure, media_type: MediaType = JSON) -> Reply:
    """Write one reply. The whole is an error only if all of it failed, or no JSON can carry the part."""
    if not isinstance(answer, Answer):
        return encode_error(answer)
    failures = [result for result in answer.results if isinstance(result, RequestError | ImageError)]
    if failures and (len(failures) == len(answer.results) or media_type != JSON):
        return encode_error(failures[0])
    if media_type != JSON:
        return _picture(answer) if media_type == PICTURE else _binary(answer, media_type)
    content: dict[str, Any] = {"release": answer.release, **answer.more}
    if answer.encoding != "float":
        content["encoding_format"] = answer.encoding
    if answer.results:
        content["results"] = [
            _error(result) if isinstance(result, RequestError | ImageError) else _written(answer, result)
            for result in answer.results
        ]
    return Reply(200, orjson.dumps(content, default=_base64, option=_JSON_OPTIONS), JSON, _by(answer))


def encode_error(error: Failure) -> Reply:
    """An error as JSON, whatever was asked for."""
    after = getattr(error, "retry_after", None)
    headers = {"retry-after": str(after)} if after is not None else {}
    if error.status == 405:
        headers["allow"] = "POST"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"  # how to say who asks
    return Reply(error.status, orjson.dumps(_error(error)), headers=headers)


def _by(answer: Answer) -> dict[str, str]:
    return {} if answer.worker is None else {WORKER_HEADER: str(answer.worker)}


def _error(error: Failure) -> dict[str, Any]:
    return {"error": {"status": error.status, "message": str(error)}}


def _base64(value: Any) -> str:
    """What JSON has no form for: a picture."""
    if isinstance(value, Picture):
        return base64.b64encode(value.content).decode()
    raise TypeError


def _written(answer: Answer, result: dict[str, Any]) -> dict[str, Any]:
    """One result as JSON carries it: an embedding's numbers, or its bytes in base64."""
    if answer.encoding == "float":
        return result
    encoded = _packed(answer, [result])
    text = base64.b64encode(encoded.values.tobytes()).decode()
    return result | {"embedding": text} | ({} if encoded.scales is None else {"scale": float(encoded.scales[0])})


def _packed(answer: Answer, results: Sequence[dict[str, Any]]) -> Encoded:
    return pack(np.stack([result["embedding"] for result in results]), answer.encoding, medians=answer.medians)


def _binary(answer: Answer, media_type: MediaType) -> Reply:
    """The embeddings' numbers, as a npy file or bare."""
    encoded = _packed(answer, answer.results)
    shape = ",".join(map(str, encoded.values.shape))
    headers = {"x-release": answer.release, "x-shape": shape, "x-dtype": encoded.values.dtype.name, **_by(answer)}
    if media_type == RAW:
        return Reply(200, encoded.values.tobytes(), RAW, headers)
    file = io.BytesIO()
    np.save(file, encoded.values, allow_pickle=False)
    return Reply(200, file.getvalue(), NPY, headers)


def _picture(answer: Answer) -> Reply:
    """The picture of the one item that was asked for; its type is of those that are read here, never a page's."""
    (result,) = answer.results
    picture: Picture = result.get("thumbnail") or result["image"]
    return Reply(200, picture.content, picture.media_type, {"x-content-type-options": "nosniff", **_by(answer)})


def _with_picture(request: Request) -> Request:
    """A get of one item with its picture, or the thumbnail where that is asked for."""
    assert isinstance(request, GetRequest), "no other operation has pictures among its replies"
    if len(request.ids) != 1:
        raise RequestError(f"a picture is the reply to get with one id, not {len(request.ids)}", 406)
    if "thumbnail" in request.include:
        return request
    return msgspec.structs.replace(request, include=request.include | {"image"})
