"""Frames: many requests in one message to a worker, and their answers in one message back, as msgpack.

Image files, embeddings and pictures travel as they are in memory, so that what the gateway reads of a frame is what the
engine answered, to the bit. A frame is of one version of this project: the gateway asks before it sends any.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import OPERATIONS, Request

FRAME = "application/x-simclr-frame"

_ARRAY, _PICTURE, _FAILURE = 1, 2, 3
_ANY_REQUEST = reduce(or_, (row.request for row in OPERATIONS.values()))


def pack_requests(requests: Sequence[Request]) -> bytes:
    """The message that carries these requests."""
    return _ENCODER.encode(requests)


def unpack_requests(message: bytes) -> list[Request]:
    """The requests that a message carries; raises `RequestError` if it is none of this version."""
    try:
        return _REQUESTS.decode(message)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RequestError(f"the frame can't be read: {error}") from error


def pack_answers(answers: Sequence[Answer | RequestError], *, worker: int | None = None) -> bytes:
    """The message that carries these answers of this process."""
    return _ENCODER.encode([worker, *map(_plain, answers)])


def unpack_answers(message: bytes) -> list[Answer | RequestError]:
    """The answers that a message carries. Arrays are read-only views of it."""
    worker, *answers = _ANSWERS.decode(message)
    return [one if isinstance(one, RequestError) else Answer(**one, worker=worker) for one in answers]


def _plain(answer: Answer | RequestError) -> Any:
    """An answer with the medians only where they are needed, and its pictures as extensions."""
    if isinstance(answer, RequestError):
        return answer
    medians = answer.medians if answer.encoding == "binary" else None
    results = [_with_pictures(result) for result in answer.results]
    return {
        "release": answer.release,
        "results": results,
        "encoding": answer.encoding,
        "medians": medians,
        "more": _with_pictures(answer.more),
    }


def _with_pictures(value: Any) -> Any:
    """msgspec would write a picture, which is a dataclass, as the map of its fields."""
    if isinstance(value, Picture):
        return _extension(_PICTURE, (value.media_type, value.content))
    if isinstance(value, dict):
        return {name: _with_pictures(one) for name, one in value.items()}
    return [_with_pictures(one) for one in value] if isinstance(value, list) else value


def _written(value: Any) -> Any:
    """What msgspec has no form for."""
    if isinstance(value, np.ndarray):
        return _extension(_ARRAY, (value.dtype.str, value.shape, np.ascontiguousarray(value).data.cast("B")))
    if isinstance(value, ImageError | RequestError):
        again = getattr(value, "retry_after", None)
        return _extension(_FAILURE, (str(value), value.status, again))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in a frame")


def _read(code: int, data: memoryview) -> Any:
    if code == _ARRAY:
        dtype, shape, content = _PARTS.decode(data)
        return _array(dtype, shape, content)
    if code == _PICTURE:
        media_type, content = _PARTS.decode(data)
        return Picture(content, media_type)
    message, status, again = _PARTS.decode(data)
    return RequestError(message, status, retry_after=again)  # what was an `ImageError` is one with its status


def _array(dtype: str, shape: Sequence[int], content: bytes) -> NDArray[Any]:
    return np.frombuffer(content, dtype).reshape(shape)


def _extension(code: int, parts: tuple[Any, ...]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(parts))


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_written)
_REQUESTS: "msgspec.msgpack.Decoder[list[Request]]" = msgspec.msgpack.Decoder(list[_ANY_REQUEST])  # type: ignore[valid-type]
_ANSWERS = msgspec.msgpack.Decoder(list[Any], ext_hook=_read)
_PARTS = msgspec.msgpack.Decoder()
